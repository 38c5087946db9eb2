"""From an MLflow URI to a model on disk, with what MLflow knows about it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from feedmodel.dates import from_milliseconds
from feedmodel.errors import PublishError
from feedmodel.options import SNAPSHOT_AS_OF, TRACKING_VARIABLE

FEATURES = "features"
REGISTERED = "models:/"
LOGGED_MODEL = "m-"
LOAD_MARKER = "registered_model_meta"  # MLflow leaves it where it loads: not part of the artifact


@dataclass(frozen=True, slots=True)
class TrackedModel:
    """`artifact` is a byte-for-byte copy of the MLflow artifact, `features` of the run's features
    folder, where it has one. `snapshot_as_of` is the run's tag as it was written."""

    name: str
    version: str
    run_id: str
    network: str
    metrics: dict[str, float]
    trained_at: str | None
    snapshot_as_of: str | None
    artifact: Path
    features: Path | None


@dataclass(frozen=True, slots=True)
class ModelAddress:
    name: str
    version: str
    run_id: str
    artifact_uri: str


@contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """MLflow's tracking URI for what happens inside. Its setter changes the environment variable
    too, so that one is put back."""
    before = os.environ.get(TRACKING_VARIABLE, "")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def fetch_model(uri: str, tracking_uri: str, into: Path) -> TrackedModel:
    """`models:/name@alias`, `models:/name/version`, `models:/m-id` or `runs:/id/path`.

    Raises PublishError where MLflow has no such thing, or can't be reached.
    """
    try:
        with tracking_at(tracking_uri):
            address = resolve(uri)
            copied = download_artifacts(address.artifact_uri, dst_path=str(into / "artifact"))
            run = mlflow.MlflowClient().get_run(address.run_id) if address.run_id else None
            features = _features(address.run_id, into) if address.run_id else None
    except (MlflowException, OSError) as error:
        raise PublishError(f"{uri}: MLflow at {without_secret(tracking_uri)}: {error}") from error
    artifact = Path(copied)
    (artifact / LOAD_MARKER).unlink(missing_ok=True)
    return TrackedModel(
        name=address.name,
        version=address.version,
        run_id=address.run_id,
        network=run.data.params.get("network", "") if run else "",
        metrics={k: v for k, v in run.data.metrics.items() if isfinite(v)} if run else {},
        trained_at=_end_of(run) if run else None,
        snapshot_as_of=run.data.tags.get(SNAPSHOT_AS_OF) if run else None,
        artifact=artifact,
        features=features,
    )


def resolve(uri: str) -> ModelAddress:
    """Raises MlflowException where MLflow has no such model, PublishError for another URI."""
    client = mlflow.MlflowClient()
    path = uri.removeprefix(REGISTERED)
    if uri.startswith("runs:/"):
        return _by_model_id(Model.load(uri).model_id, uri)
    if not uri.startswith(REGISTERED):
        raise PublishError(
            f"{uri}: must be models:/name@alias, models:/name/version or runs:/id/path"
        )
    if path.startswith(LOGGED_MODEL):
        return _by_model_id(path, uri)
    if "@" in path:
        version = client.get_model_version_by_alias(*path.split("@", 1))
    else:
        name, _, number = path.partition("/")
        version = client.get_model_version(name, number)
    artifact_uri = client.get_model_version_download_uri(version.name, version.version)
    return ModelAddress(version.name, str(version.version), version.run_id or "", artifact_uri)


def _by_model_id(model_id: str | None, uri: str) -> ModelAddress:
    """A model without a registered version is known by its own id."""
    if not model_id:
        raise PublishError(f"{uri}: was logged by an MLflow before 3; register it first")
    model = mlflow.MlflowClient().get_logged_model(model_id)
    return ModelAddress(model.name, model_id, model.source_run_id or "", model.artifact_location)


def _end_of(run: Run) -> str:
    """A run that is not over yet has its start instead."""
    return from_milliseconds(run.info.end_time or run.info.start_time)


def _features(run_id: str, into: Path) -> Path | None:
    if not list_artifacts(run_id=run_id, artifact_path=FEATURES):
        return None
    copied = download_artifacts(run_id=run_id, artifact_path=FEATURES, dst_path=str(into))
    return Path(copied)


def without_secret(uri: str) -> str:
    """A tracking URI may carry a password before the @."""
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
