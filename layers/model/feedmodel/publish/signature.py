"""The inputs and outputs of a model in MLflow, by its signature."""

from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.artifacts import download_artifacts
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from feedmodel.errors import PublishError
from feedmodel.publish.admission import MLMODEL
from feedmodel.publish.drafts import TODO, TensorDescription
from feedmodel.publish.registry import FETCH_ERRORS, resolve, tracking_at
from feedmodel.publish.tracking import reason_of, tracking_uri, without_secret

LOG_ONE = (
    "log the model with signature=ModelSignature(Schema([TensorSpec(np.dtype('float32'), (-1, 4), "
    "'x'), ...])), one TensorSpec an input"
)


def read_signature(
    uri: str, tracking: str | None = None
) -> tuple[list[TensorDescription], list[TensorDescription]]:
    """Inputs and outputs; a signature may leave out the outputs. Raises PublishError where MLflow
    has no such model, or the model no signature of tensors."""
    signature = _logged_signature(uri, tracking_uri(tracking))
    if signature is None or signature.inputs is None:
        raise PublishError(f"{uri}: has no signature: {LOG_ONE}")
    inputs = _described(signature.inputs, "input")
    if inputs is None:
        raise PublishError(f"{uri}: its signature has columns, not tensors: {LOG_ONE}")
    return inputs, (signature.outputs and _described(signature.outputs, "output")) or []


def output_names(artifact: Path) -> tuple[str, ...]:
    """In the model's order, as far as its signature names them."""
    if not (artifact / MLMODEL).is_file():
        return ()
    signature = Model.load(str(artifact)).signature
    outputs = signature.outputs if signature else None
    return tuple(str(each.name) for each in outputs or () if each.name)


def _logged_signature(uri: str, server: str) -> ModelSignature | None:
    try:
        with tracking_at(server), TemporaryDirectory() as scratch:
            file = f"{resolve(uri).artifact_uri.rstrip('/')}/{MLMODEL}"
            model = Model.load(download_artifacts(file, dst_path=scratch))
    except FETCH_ERRORS as error:
        at, reason = without_secret(server), reason_of(error, server)
        raise PublishError(f"{uri}: MLflow at {at}: {reason}") from error
    signature: ModelSignature | None = model.signature
    return signature


def _described(schema: Schema, what: str) -> list[TensorDescription] | None:
    """None where it has columns, not tensors."""
    if not all(isinstance(each, TensorSpec) for each in schema):
        return None
    return [
        TensorDescription(
            each.name or f"{TODO} the name of {what} {number}",
            str(each.type),
            tuple(int(size) for size in each.shape),
        )
        for number, each in enumerate(schema)
    ]
