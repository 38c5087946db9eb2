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

# A server that takes the connection and doesn't answer is given up; MLflow would wait 16 minutes.
IMPATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
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


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for what happens inside."""
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
def impatient() -> Iterator[None]:
    """For the first questions to a server. What the environment says of timeouts goes before."""
    with environment(**{name: os.environ.get(name, value) for name, value in IMPATIENCE.items()}):
        yield


def fetch_model(uri: str, tracking_uri: str, into: Path) -> TrackedModel:
    """`models:/name@alias`, `models:/name/version`, `models:/m-id` or `runs:/id/path`.

    Raises PublishError where MLflow has no such thing, or can't be reached.
    """
    _check_database(tracking_uri)
    try:
        with tracking_at(tracking_uri):
            address = resolve(uri)
            copied = download_artifacts(address.artifact_uri, dst_path=str(into / "artifact"))
            run = mlflow.MlflowClient().get_run(address.run_id) if address.run_id else None
            features = _features(address.run_id, into) if address.run_id else None
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:  # a database's driver
        at = without_secret(tracking_uri)
        hint = "\n`feedrank promote` sets the alias" if uri.endswith(f"@{PRODUCTION}") else ""
        reason = reason_of(error, tracking_uri)
        raise PublishError(f"{uri}: MLflow at {at}: {reason}{hint}") from error
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
    """Raises MlflowException where MLflow has no such model or doesn't answer, PublishError for
    another URI."""
    with impatient():
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
    files = [Path(file.path).name for file in list_artifacts(run_id=run_id, artifact_path=path)]
    if files and MLMODEL not in files:
        raise PublishError(f"{uri}: holds files, but no MLflow model ({MLMODEL}): {LOG_IT}")
    return _by_model_id(Model.load(uri).model_id, uri)


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


def _check_database(uri: str) -> None:
    """MLflow would make an empty database of a path that is mistyped."""
    database = sqlite_database(uri)
    if database and not (database.is_file() and database.stat().st_size):
        raise PublishError(
            f"{database}: there is no MLflow database; mend --tracking-uri or {TRACKING_VARIABLE}, "
            "or make a model by `feedrank train`"
        )
