"""An MLflow run, and the model, feature spec and tables logged to it as publishing expects them.

Without a tracking URI everything is below data/mlflow in the working directory. With a SQLite
one, artifacts go beside the database; any other server decides itself where they go.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from numpy.typing import NDArray
from sqlalchemy.engine import make_url
from torch import nn

from feedmodel.dates import from_milliseconds
from feedmodel.errors import TrackingError
from feedmodel.publish.export import without_stack_traces
from feedmodel.publish.names import EXPECTED_FILE, FEATURES, REGISTERED, SNAPSHOT_AS_OF, SPEC_FILE
from feedmodel.publish.registry import short_timeouts, tracking_at
from feedmodel.publish.tables import TableName
from feedmodel.publish.tracking import reason_of
from feedrank.features.spec import FeatureSpec, Input

EXAMPLE_ROWS = 16
NO_TAGS: Mapping[str, str] = {}


@contextmanager
def tracked_run(
    uri: str, experiment: str, name: str, tags: Mapping[str, str] = NO_TAGS
) -> Iterator[str]:
    """A run for the block, and its id; failed if the block raises.

    Raises TrackingError where MLflow can't be reached or refuses.
    """
    with (
        tracking_at(uri),
        mlflow.start_run(
            experiment_id=_experiment_id(uri, experiment), run_name=name, tags=dict(tags)
        ) as run,
    ):
        yield run.info.run_id


def log_features(
    spec: FeatureSpec,
    tables: Mapping[TableName, pd.DataFrame],
    as_of_s: int,
    expected_scores: pd.DataFrame | None = None,
) -> None:
    """The feature spec and the tables that serving looks up, under features/, and their time; and
    what an evaluation with these very tables gave, which a bundle then has to give."""
    mlflow.set_tag(SNAPSHOT_AS_OF, from_milliseconds(1_000 * as_of_s))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / SPEC_FILE).write_text(json.dumps(spec.to_json(), indent=2) + "\n")
        for name, table in tables.items():
            table.to_parquet(directory / f"{name}.parquet", index=False)
        if expected_scores is not None:
            expected_scores.to_parquet(directory / EXPECTED_FILE, index=False)
        mlflow.log_artifacts(scratch, FEATURES)


def log_network(
    network: nn.Module,
    spec: FeatureSpec,
    inputs: Mapping[str, NDArray[Any]],
    tags: Mapping[str, str] = NO_TAGS,
) -> str:
    """Log the network as a torch.export program, free of pickle. Returns the model's URI.

    A per-request input's example has one row, which torch.export takes as fixed; a per-item one
    has several, which makes its rows dynamic. MLflow keeps the example of a single input alone.
    """
    torch_version = torch.__version__.partition("+")[0]  # without the build, such as +cpu
    example = tuple(
        inputs[input_.name][: 1 if input_.per == "request" else EXAMPLE_ROWS]
        for input_ in spec.inputs
    )
    with without_stack_traces():
        info = mlflow.pytorch.log_model(
            network,
            name="model",
            serialization_format="pt2",
            signature=_signature(spec),
            input_example=example if len(example) > 1 else example[0],
            pip_requirements=[f"torch=={torch_version}", f"numpy=={np.__version__}"],
            tags=dict(tags),
            validate_serving_input=False,  # by MLflow's own server, which takes no lists
        )
    return str(info.model_uri)


def register(
    model_uri: str,
    run_id: str,
    name: str,
    alias: str,
    tags: Mapping[str, str] = NO_TAGS,
    *,
    description: str | None = None,
) -> str:
    """Make the model a new version of `name` and point `alias` to it. Returns the version."""
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=description)
    model_id = model_uri.removeprefix(REGISTERED)
    details = "".join(f" {key.capitalize()}: {value}." for key, value in tags.items())
    version = client.create_model_version(
        *(name, model_uri),
        run_id=run_id,
        tags=dict(tags),
        description=description and description + details,
        model_id=model_id,
    )
    link = json.dumps([{"name": name, "version": version.version}])
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: link})
    client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


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
    """A SQLite store's artifacts. MLflow's own default would litter the working directory."""
    if not uri.startswith("sqlite:"):
        return None
    database = make_url(uri).database
    if not database:
        raise TrackingError(f"{uri}: names no database file")
    directory = Path(database).resolve().parent / "artifacts"
    directory.mkdir(parents=True, exist_ok=True)
    return directory.as_uri()


def _signature(spec: FeatureSpec) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([_tensor_spec(input_) for input_ in spec.inputs]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,))]),
    )


def _tensor_spec(input_: Input) -> TensorSpec:
    return TensorSpec(np.dtype(input_.type), input_.tensor_shape, input_.name)
