"""Which version is in production: a candidate takes its place where it ranks no worse."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from feedmodel.dates import to_moment
from feedmodel.errors import PromotionError
from feedmodel.publish.names import LOGGED_MODEL, PRODUCTION, REGISTERED
from feedmodel.publish.registry import resolve

DECISIVE = "test/model/ndcg_at_10"
TEST = "test"  # the context of the data that a run was judged on
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the latter for an alias

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Contender:
    """`test_data` is the digest that MLflow has of it, None where the run names no such data."""

    name: str
    version: str
    metrics: dict[str, float]
    test_data: str | None

    @property
    def uri(self) -> str:
        return f"{REGISTERED}{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Comparison:
    candidate: Contender
    production: Contender | None  # None before the first promotion

    @property
    def is_same(self) -> bool:
        return self.production is not None and self.candidate.uri == self.production.uri

    def objection(self) -> str | None:
        """Why the candidate should not take over."""
        candidate, production = self.candidate, self.production
        if production is None:
            return None
        if candidate.test_data is None or candidate.test_data != production.test_data:
            return (
                "they can't be compared: their runs name "
                f"{candidate.test_data or 'no'} and {production.test_data or 'no'} test data"
            )
        challenge, reigning = (each.metrics.get(DECISIVE) for each in (candidate, production))
        if challenge is None or reigning is None:
            return f"they can't be compared: a run has no metric {DECISIVE}"
        if not challenge >= reigning:  # NaN is a loss
            return f"it loses in NDCG@10: {challenge:.4f} against {reigning:.4f}"
        return None


def compare(uri: str) -> Comparison:
    """A registered version beside the one that is in production by the same name.

    Raises PromotionError where it is none, MlflowException where MLflow can't say.
    """
    if not uri.startswith(REGISTERED) or uri.startswith(f"{REGISTERED}{LOGGED_MODEL}"):
        raise PromotionError(f"{uri}: must be a version's number or models:/name/version")
    address = _unless_absent(lambda: resolve(uri))
    if address is None:
        raise PromotionError(f"{uri}: MLflow has no such version; `feedrank train` makes one")
    client = mlflow.MlflowClient()
    production = _unless_absent(lambda: client.get_model_version_by_alias(address.name, PRODUCTION))
    return Comparison(
        _contender(client.get_model_version(address.name, address.version)),
        _contender(production) if production else None,
    )


def promote(comparison: Comparison) -> None:
    """Let the alias point to the candidate, and tag its version with when and what was there."""
    client, candidate = mlflow.MlflowClient(), comparison.candidate
    client.set_registered_model_alias(candidate.name, PRODUCTION, candidate.version)
    for tag, value in {
        "promoted_at": to_moment(datetime.now(UTC)),
        "promoted_from": comparison.production.uri if comparison.production else "none",
    }.items():
        client.set_model_version_tag(candidate.name, candidate.version, tag, value)


def _contender(version: ModelVersion) -> Contender:
    if not version.run_id:
        return Contender(version.name, str(version.version), {}, None)
    run_id = version.run_id
    run = _unless_absent(lambda: mlflow.MlflowClient().get_run(run_id))
    if run is None:  # removed since
        return Contender(version.name, str(version.version), {}, None)
    digests = [
        given.dataset.digest
        for given in (run.inputs.dataset_inputs if run.inputs else ())
        if (MLFLOW_DATASET_CONTEXT, TEST) in {(tag.key, tag.value) for tag in given.tags}
    ]
    return Contender(
        version.name,
        str(version.version),
        dict(run.data.metrics),
        " ".join(sorted(digests)) or None,
    )


def _unless_absent(ask: Callable[[], Answer]) -> Answer | None:
    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise
