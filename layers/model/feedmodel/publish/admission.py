"""What a model must be to be published, checked before it is exported to ONNX."""

import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.export import ExportedProgram
from torch.fx import Node

from feedmodel.errors import PublishError

MLMODEL = "MLmodel"
LOG_IT = 'log the torch.nn.Module by mlflow.pytorch.log_model(..., serialization_format="pt2")'
CONVERTIBLE = {"lightgbm", "xgboost", "sklearn", "catboost"}
CONVERT_IT = (
    "convert it to ONNX, as onnxmltools does, log that by mlflow.onnx.log_model, and publish it "
    "with --expect"
)
MAX_WEIGHT_BYTES = 2**31 - 2**24  # a protobuf message ends at 2 GiB; the rest is for the graph
NAME_THEM = (
    "name its outputs in the feature spec, with the weight of each: "
    '"outputs": [{"name": "click", "weight": 1}, ...]'
)
FLOAT_BYTES = 4
SWITCHES = {"train", "training"}  # arguments of operators that training mode turns on
PROBABILITIES = {"p", "dropout", "dropout_p"}  # of dropping a value


def check_artifact(artifact: Path) -> None:
    """For an artifact without an exported program. Raises PublishError where it holds no PyTorch
    model that could be exported."""
    if not (artifact / MLMODEL).is_file():
        raise PublishError(
            "the artifact is no MLflow model: it has no MLmodel file, and weights alone (a "
            f"state_dict) are no model: {LOG_IT}"
        )
    flavors = flavors_of(artifact / MLMODEL)
    if "pytorch" not in flavors:
        flavor = next((name for name in flavors if name != "python_function"), "python_function")
        how = CONVERT_IT if flavor in CONVERTIBLE else LOG_IT
        raise PublishError(f"MLflow holds it in the flavour {flavor}, not pytorch or onnx: {how}")
    if any(_is_torchscript(file) for file in (artifact / "data").glob("**/*.pth")):
        raise PublishError(f"the model is TorchScript, which torch.export can't read: {LOG_IT}")


def check_program(program: ExportedProgram, *, several_outputs: bool = False) -> None:
    """Raises PublishError for what can't become one ONNX file that gives each item a float score,
    the same one each time."""
    _check_weights(program)
    _check_outputs(program, several=several_outputs)
    for node in program.graph.nodes:
        if node.op == "call_function":
            _check_operator(node)


def flavors_of(file: Path) -> dict[str, Any]:
    """What MLflow wrote about each flavour. Raises PublishError."""
    try:
        flavors = yaml.safe_load(file.read_bytes())["flavors"]
        return {str(name): flavors[name] for name in flavors}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise PublishError(f"{MLMODEL} can't be read; log the model again") from error


def _is_torchscript(file: Path) -> bool:
    """TorchScript's archives hold source code beside the pickle."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def _tensors(program: ExportedProgram) -> Iterator[torch.Tensor]:
    yield from program.state_dict.values()
    for constant in program.constants.values():
        if isinstance(constant, torch.Tensor):
            yield constant


def _check_weights(program: ExportedProgram) -> None:
    tensors = list(_tensors(program))
    for tensor in tensors:
        _check_precision(tensor, "the model's weights are")
    shared = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    if (size := sum(shared.values())) > MAX_WEIGHT_BYTES:
        raise PublishError(
            f"the model's weights take {size / 1e9:.2f} GB, and an ONNX file holds at most "
            f"{MAX_WEIGHT_BYTES / 1e9:.2f} GB: train it with smaller embedding tables"
        )


def _check_outputs(program: ExportedProgram, *, several: bool) -> None:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    outputs = [values.get(str(name)) for name in program.graph_signature.user_outputs]
    tree = program.call_spec.out_spec
    if not (several or tree.is_leaf()):
        kind = getattr(tree.type, "__name__", "structure")
        raise PublishError(
            f"the model's forward returns a {kind}: it must return one tensor, a score for each "
            f"item. Log a module that returns the scores alone, or {NAME_THEM}"
        )
    for output in outputs:
        if not isinstance(output, torch.Tensor) or not output.dtype.is_floating_point:
            raise PublishError(
                "the model's forward must return a tensor of floats, one for each item"
            )
        _check_precision(output, "the model's scores are")
        columns = prod(output.shape[1:])
        if not several and isinstance(columns, int) and columns > 1:
            raise PublishError(
                f"the model gives {columns} values for an item, not one: log a module that returns "
                f"the score alone, or {NAME_THEM}"
            )


def _check_precision(tensor: torch.Tensor, subject: str) -> None:
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize < FLOAT_BYTES:
        raise PublishError(
            f"{subject} {str(tensor.dtype).removeprefix('torch.')}, which ONNX Runtime can't run "
            "as torch does: log model.float(), with an input_example of float32"
        )


def _check_operator(node: Node) -> None:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return
    names = [argument.name for argument in schema.arguments]
    arguments = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if _is_training(arguments):
        raise PublishError(
            f"the model was logged in training mode ({schema.name} is on): call model.eval() "
            "before you log it"
        )
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags and not (SWITCHES | PROBABILITIES) & set(names):
        raise PublishError(
            f"the model draws random numbers ({schema.name}): the same request must get the same "
            "scores. Log it without them"
        )


def _is_training(arguments: Mapping[str, Any]) -> bool:
    """Whether an operator drops values at random, or normalises by the batch. A probability of 0
    has no effect."""
    names = arguments.keys()
    probability = max((float(arguments[name] or 0) for name in PROBABILITIES & names), default=None)
    if switches := SWITCHES & names:
        return any(arguments[name] is True for name in switches) and probability != 0
    return bool(probability) and "dropout_p" in names
