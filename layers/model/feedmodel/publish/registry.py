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
from sqlalchemy.exc import SQLAlchemyError

from feedmodel.dates import from_milliseconds
from feedmodel.errors import PublishError
from feedmodel.publish.admission import LOG_IT, MLMODEL
from feedmodel.publish.names import FEATURES, LOGGED_MODEL, PRODUCTION, REGISTERED, SNAPSHOT_AS_OF
from feedmodel.publish.tracking import TRACKING_VARIABLE, reason_of, sqlite_database, without_secret

# For a server that accepts the connection and never responds: MLflow would wait 16 minutes.
SHORT_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
# MLflow writes this file when it loads a model; it is no part of the artifact.
LOAD_MARKER = "registered_model_meta"
# ImportError: the driver of a database is not installed.
FETCH_ERRORS = (MlflowException, SQLAlchemyError, ImportError, OSError)


@dataclass(frozen=True, slots=True)
class TrackedModel:
    """`artifact` is a byte-for-byte copy of the MLflow artifact, `features` of the run's features
    directory, if it has one. `snapshot_as_of` is the run's tag, not yet parsed."""

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
    """MLflow's tracking URI inside the block. Its setter changes the environment variable too, so
    that is restored."""
    before = os.environ.get(TRACKING_VARIABLE, "")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def short_timeouts() -> Iterator[None]:
    """For the first requests to a server. Timeouts that the environment sets take precedence."""
    timeouts = {name: os.environ.get(name, value) for name, value in SHORT_TIMEOUTS.items()}
    with environment(**timeouts):
        yield


def fetch_model(uri: str, tracking_uri: str, into: Path) -> TrackedModel:
    """Copy a model to disk: `models:/name@alias`, `models:/name/version`, `models:/m-id` or
    `runs:/id/path`.

    Raises PublishError where MLflow has no such model, or can't be reached.
    """
    _check_database(tracking_uri)
    try:
        with tracking_at(tracking_uri):
            address = resolve(uri)
            artifact = Path(
                download_artifacts(address.artifact_uri, dst_path=str(into / "artifact"))
            )
            run = mlflow.MlflowClient().get_run(address.run_id) if address.run_id else None
            features = _features(address.run_id, into) if address.run_id else None
    except FETCH_ERRORS as error:
        at = without_secret(tracking_uri)
        hint = "\n`feedrank promote` sets the alias" if uri.endswith(f"@{PRODUCTION}") else ""
        reason = reason_of(error, tracking_uri)
        raise PublishError(f"{uri}: MLflow at {at}: {reason}{hint}") from error
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
    """Raises MlflowException where MLflow has no such model or doesn't respond, PublishError for
    another kind of URI."""
    with short_timeouts():
        return _resolve(uri)


def _resolve(uri: str) -> ModelAddress:
    client = mlflow.MlflowClient()
    path = uri.removeprefix(REGISTERED)
    if uri.startswith("runs:/"):
        return _by_run(uri)
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


def _by_run(uri: str) -> ModelAddress:
    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    names = {Path(file.path).name for file in list_artifacts(run_id=run_id, artifact_path=path)}
    if names and MLMODEL not in names:
        raise PublishError(f"{uri}: holds files, but no MLflow model ({MLMODEL}): {LOG_IT}")
    return _by_model_id(Model.load(uri).model_id, uri)


def _by_model_id(model_id: str | None, uri: str) -> ModelAddress:
    """A model without a registered version is identified by its own id."""
    if not model_id:
        raise PublishError(f"{uri}: was logged by an MLflow before 3; register it first")
    model = mlflow.MlflowClient().get_logged_model(model_id)
    return ModelAddress(model.name, model_id, model.source_run_id or "", model.artifact_location)


def _end_of(run: Run) -> str:
    """A run that has not ended yet gives its start instead."""
    return from_milliseconds(run.info.end_time or run.info.start_time)


def _features(run_id: str, into: Path) -> Path | None:
    if not list_artifacts(run_id=run_id, artifact_path=FEATURES):
        return None
    return Path(download_artifacts(run_id=run_id, artifact_path=FEATURES, dst_path=str(into)))


def _check_database(uri: str) -> None:
    """MLflow would create an empty database where a path is mistyped."""
    database = sqlite_database(uri)
    if database and not (database.is_file() and database.stat().st_size):
        raise PublishError(
            f"{database}: there is no MLflow database; correct --tracking-uri or "
            f"{TRACKING_VARIABLE}, or train a model with `feedrank train`"
        )
