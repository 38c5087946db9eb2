"""What MLflow keeps of a training run: one run, one logged model, one registered version.

Without a tracking URI everything is below data/mlflow in the working directory. With a SQLite
one, artifacts go beside the database; any other server decides itself where they go.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.data.dataset import Dataset
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_MODEL_VERSIONS, MLFLOW_RUN_NOTE
from sqlalchemy.engine import make_url
from torch import nn
from torch.fx import config as fx_config

from feedmodel.demo.networks import Network
from feedmodel.demo.options import TrainOptions
from feedmodel.demo.tables import Snapshot
from feedmodel.demo.unknown import SHARE_IN_TRAINING
from feedmodel.errors import TrackingError
from feedmodel.publish.names import SNAPSHOT_AS_OF
from feedmodel.publish.registry import short_timeouts, tracking_at
from feedmodel.publish.tracking import reason_of
from feedmodel.training.fit import Epoch
from feedrank.domain import FloatArray
from feedrank.features.spec import FeatureSpec, Input

SOURCE = {"mlflow.source.name": "feedrank train"}  # instead of the path of the script
MODELS = "models:/"
EXAMPLE_ROWS = 16
OPTIMIZER_PARAMS = ("betas", "eps", "weight_decay")
WHAT_IT_IS = (
    "The probability that a user engages with an item of the feed, from features that `feedrank` "
    "looks up. Trained on a synthetic feed; a share of users and items was unknown."
)


@contextmanager
def tracked_run(uri: str, experiment: str, name: str) -> Iterator[str]:
    """A run for what happens inside, and its id; failed if that raises.

    Raises TrackingError where MLflow can't be reached or refuses.
    """
    with (
        tracking_at(uri),
        mlflow.start_run(
            experiment_id=_experiment_id(uri, experiment),
            run_name=name,
            tags=SOURCE | _commit(),
        ) as run,
    ):
        yield run.info.run_id


def log_options(options: TrainOptions) -> None:
    mlflow.log_params({k: v for k, v in asdict(options).items() if k != "tracking_uri"})
    mlflow.log_param("unknown_share", SHARE_IN_TRAINING)


def log_architecture(network: Network, optimizer: torch.optim.Optimizer) -> None:
    """Layers' widths by part of the network, and what the optimiser was left at."""
    for name, part in network.named_children():
        linear = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
        if linear:
            widths = "-".join(str(layer.out_features) for layer in linear)
            mlflow.log_param(f"layers/{name}", widths)
    dropout = {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)}
    mlflow.log_params(
        {
            "dropout": ", ".join(map(str, sorted(dropout))),
            "weights": sum(tensor.numel() for tensor in network.parameters()),
            "optimizer": type(optimizer).__name__,
            **{f"adam/{name}": optimizer.defaults[name] for name in OPTIMIZER_PARAMS},
        }
    )


def log_epoch(epoch: Epoch) -> None:
    mlflow.log_metrics(
        {
            "train/loss": epoch.train_loss,
            "validation/loss": epoch.validation_loss,
            "validation/auc": epoch.validation_auc,
        },
        step=epoch.number,
    )


def log_quality(metrics: Mapping[str, float], model_uri: str, data: Dataset) -> None:
    """Of the run and of its model, as measured on `data`."""
    mlflow.log_metrics(dict(metrics), model_id=model_uri.removeprefix(MODELS), dataset=data)


def log_features(spec: FeatureSpec, snapshot: Snapshot, as_of_s: int) -> None:
    """The feature spec and the tables that serving looks up, under features/, and their date."""
    as_of = datetime.fromtimestamp(as_of_s, UTC)
    mlflow.set_tag(SNAPSHOT_AS_OF, as_of.strftime("%Y-%m-%dT%H:%M:%SZ"))
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
    has several, which makes its rows dynamic. MLflow keeps the example of a single input alone.
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
            input_example=example if len(example) > 1 else example[0],
            pip_requirements=[f"torch=={torch_version}", f"numpy=={np.__version__}"],
            tags=SOURCE | {MLFLOW_RUN_NOTE: WHAT_IT_IS},
        )
    return str(info.model_uri)


def register(model_uri: str, run_id: str, name: str, alias: str, tags: Mapping[str, str]) -> str:
    """Make the model a new version of `name` and let `alias` point to it. Returns the version."""
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=WHAT_IT_IS)
    model_id = model_uri.removeprefix(MODELS)
    version = client.create_model_version(
        *(name, model_uri),
        run_id=run_id,
        tags=dict(tags),
        description=f"{WHAT_IT_IS} Network: {', '.join(tags.values())}.",
        model_id=model_id,
    )
    link = json.dumps([{"name": name, "version": version.version}])
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: link})
    client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


def _commit() -> dict[str, str]:
    """Of the code that trains, where it lies in a repository. MLflow looks beside the script."""
    commit = get_git_commit(__file__)
    return {MLFLOW_GIT_COMMIT: commit} if commit else {}


def _experiment_id(uri: str, name: str) -> str:
    try:
        location = _artifacts_beside_database(uri)
        with short_timeouts():
            if experiment := mlflow.get_experiment_by_name(name):
                return str(experiment.experiment_id)
            return str(mlflow.create_experiment(name, artifact_location=location))
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow experiment {name!r}: {reason_of(error, uri)}") from error


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
