"""What MLflow keeps of a training run: one run, one logged model, one registered version.

Without a tracking URI everything is below data/mlflow in the working directory. With a SQLite
one, artifacts go beside the database; any other server decides itself where they go.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from sqlalchemy.engine import make_url
from torch import nn
from torch.fx import config as fx_config

from feedmodel.registry import tracking_at
from feedmodel.tables import Snapshot
from feedmodel.training import Epoch
from feedrank.domain import FloatArray
from feedrank.errors import FeedrankError
from feedrank.features.spec import FeatureSpec, Input

SOURCE = {"mlflow.source.name": "feedrank train"}  # instead of the path of the script
EXAMPLE_ROWS = 16


class TrackingError(FeedrankError):
    """MLflow can't be used as configured."""


@contextmanager
def tracked_run(uri: str, experiment: str, name: str) -> Iterator[str]:
    """A run for what happens inside, and its id; failed if that raises.

    Raises TrackingError where MLflow can't be reached or refuses.
    """
    with (
        tracking_at(uri),
        mlflow.start_run(
            experiment_id=_experiment_id(uri, experiment), run_name=name, tags=SOURCE
        ) as run,
    ):
        yield run.info.run_id


def log_epoch(epoch: Epoch) -> None:
    losses = {k: v for k, v in asdict(epoch).items() if k != "number"}
    mlflow.log_metrics(losses, step=epoch.number)


def log_features(spec: FeatureSpec, snapshot: Snapshot) -> None:
    """The feature spec and the tables that serving looks up, under features/."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder)
        (to / "feature_spec.json").write_text(json.dumps(spec.to_json(), indent=2) + "\n")
        snapshot.users.to_parquet(to / "users.parquet", index=False)
        snapshot.items.to_parquet(to / "items.parquet", index=False)
        snapshot.pairs.to_parquet(to / "pairs.parquet", index=False)
        mlflow.log_artifacts(folder, "features")


def log_network(network: nn.Module, spec: FeatureSpec, inputs: Mapping[str, FloatArray]) -> str:
    """Log the network as a torch.export program, free of pickle. Returns the model's URI.

    A per-request input's example has one row, which torch.export takes as fixed; a per-item one
    has several, which makes its rows dynamic.
    """
    torch_version = torch.__version__.partition("+")[0]  # without the build, such as +cpu
    example = tuple(
        inputs[input_.name][: 1 if input_.per == "request" else EXAMPLE_ROWS]
        for input_ in spec.inputs
    )
    with _no_stack_traces():
        info = mlflow.pytorch.log_model(
            network,
            name="model",
            serialization_format="pt2",
            signature=_signature(spec),
            input_example=example,
            pip_requirements=[f"torch=={torch_version}", f"numpy=={np.__version__}"],
            tags=SOURCE,
        )
    return str(info.model_uri)


def register(model_uri: str, run_id: str, name: str, alias: str, tags: Mapping[str, str]) -> str:
    """Make the model a new version of `name` and let `alias` point to it. Returns the version."""
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    model_id = model_uri.removeprefix("models:/")
    version = client.create_model_version(
        name, model_uri, run_id=run_id, tags=dict(tags), model_id=model_id
    )
    client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


def _experiment_id(uri: str, name: str) -> str:
    try:
        location = _artifacts_beside_database(uri)
        if experiment := mlflow.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        return str(mlflow.create_experiment(name, artifact_location=location))
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow experiment {name!r}: {error}") from error


def _artifacts_beside_database(uri: str) -> str | None:
    """Where a SQLite store's artifacts go; MLflow's own default would litter the working folder."""
    if not uri.startswith("sqlite:"):
        return None
    database = make_url(uri).database
    if not database:
        raise TrackingError(f"{uri}: names no database file")
    folder = Path(database).resolve().parent / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    """torch.export notes each operator's source line, and with it this machine's paths."""
    before = fx_config.do_not_emit_stack_traces
    fx_config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


def _signature(spec: FeatureSpec) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([_tensor_spec(input_) for input_ in spec.inputs]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,))]),
    )


def _tensor_spec(input_: Input) -> TensorSpec:
    rows = 1 if input_.per == "request" else -1
    return TensorSpec(np.dtype(np.float32), (rows, len(input_.features)), input_.name)
