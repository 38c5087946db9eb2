"""The inputs of a model in MLflow, by its signature."""

from tempfile import TemporaryDirectory

from mlflow.artifacts import download_artifacts
from mlflow.models import Model
from mlflow.types import TensorSpec

from feedmodel.errors import PublishError
from feedmodel.publish.admission import MLMODEL
from feedmodel.publish.drafts import TODO, TensorDescription
from feedmodel.publish.registry import FETCH_ERRORS, resolve, tracking_at
from feedmodel.publish.tracking import reason_of, tracking_uri, without_secret

LOG_ONE = (
    "log the model with signature=ModelSignature(Schema([TensorSpec(np.dtype('float32'), (-1, 4), "
    "'x'), ...])), one TensorSpec an input"
)


def signature_inputs(uri: str, tracking: str | None = None) -> list[TensorDescription]:
    """Raises PublishError where MLflow has no such model, or the model no signature of tensors."""
    server = tracking_uri(tracking)
    try:
        with tracking_at(server), TemporaryDirectory() as scratch:
            file = f"{resolve(uri).artifact_uri.rstrip('/')}/{MLMODEL}"
            signature = Model.load(download_artifacts(file, dst_path=scratch)).signature
    except FETCH_ERRORS as error:
        at, reason = without_secret(server), reason_of(error, server)
        raise PublishError(f"{uri}: MLflow at {at}: {reason}") from error
    if signature is None or signature.inputs is None:
        raise PublishError(f"{uri}: has no signature: {LOG_ONE}")
    inputs = list(signature.inputs)
    if not all(isinstance(each, TensorSpec) for each in inputs):
        raise PublishError(f"{uri}: its signature has columns, not tensors: {LOG_ONE}")
    return [_described(each, number) for number, each in enumerate(inputs)]


def _described(tensor: TensorSpec, number: int) -> TensorDescription:
    name = tensor.name or f"{TODO} the name of input {number}"
    return TensorDescription(name, str(tensor.type), tuple(int(size) for size in tensor.shape))
