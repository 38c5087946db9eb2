"""Which version is in production: a candidate replaces it if it ranks no worse."""

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
TEST = "test"  # the context of the data that a run was evaluated on
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the latter for an alias

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Contender:
    """`test_data` is its digest in MLflow, None where the run names no test data."""

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
        """Why the candidate should not be promoted; None if nothing speaks against it."""
        candidate, production = self.candidate, self.production
        if production is None:
            return None
        if candidate.test_data is None or candidate.test_data != production.test_data:
            return (
                "they can't be compared: their runs name "
                f"{candidate.test_data or 'no'} and {production.test_data or 'no'} test data"
            )
        ndcg, minimum = candidate.metrics.get(DECISIVE), production.metrics.get(DECISIVE)
        if ndcg is None or minimum is None:
            return f"they can't be compared: a run has no metric {DECISIVE}"
        if not ndcg >= minimum:  # NaN is worse
            return f"its NDCG@10 is lower: {ndcg:.4f} instead of {minimum:.4f}"
        return None


def compare(uri: str) -> Comparison:
    """A registered version and the one in production under the same name.

    Raises PromotionError for a URI that names no such version, MlflowException where MLflow fails.
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
    """Point the alias to the candidate, and tag its version with the time and what it replaced."""
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
    if run is None:  # deleted since
        return Contender(version.name, str(version.version), {}, None)
    digests = [
        entry.dataset.digest
        for entry in (run.inputs.dataset_inputs if run.inputs else ())
        if (MLFLOW_DATASET_CONTEXT, TEST) in {(tag.key, tag.value) for tag in entry.tags}
    ]
    return Contender(
        version.name,
        str(version.version),
        dict(run.data.metrics),
        " ".join(sorted(digests)) or None,
    )


def _unless_absent(request: Callable[[], Result]) -> Result | None:
    try:
        return request()
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise
