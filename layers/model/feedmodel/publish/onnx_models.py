"""Models that MLflow holds as ONNX files, such as trees: admitted as they are, byte for byte."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from feedmodel.errors import PublishError
from feedmodel.publish.admission import MLMODEL, flavors_of
from feedmodel.publish.inputs import Declared
from feedrank.features.spec import FeatureSpec, Type

DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
RANDOM = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip
TYPES: Mapping[int, Type] = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}
MAX_CAUSE = 300  # characters


@dataclass(frozen=True, slots=True)
class OnnxProgram:
    """`inputs` are in the file's order."""

    file: Path
    inputs: Mapping[str, Declared]


def onnx_file(artifact: Path) -> Path | None:
    """The file of an artifact of MLflow's onnx flavour; None where there is PyTorch to publish.

    Raises PublishError.
    """
    if not (artifact / MLMODEL).is_file():
        return None
    flavors = flavors_of(artifact / MLMODEL)
    if "onnx" not in flavors or "pytorch" in flavors:
        return None
    data = flavors["onnx"]
    file = artifact / str(data.get("data") if isinstance(data, dict) else "")
    if not (file.is_file() and file.resolve().is_relative_to(artifact.resolve())):
        raise PublishError(f"{MLMODEL} names no ONNX file of the model; log the model again")
    return file


def load_onnx(file: Path, spec: FeatureSpec) -> OnnxProgram:
    """Raises PublishError for a file that isn't one deterministic model of ONNX's own operators,
    with one score an item."""
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's errors share no public base class
        raise PublishError(f"{file.name}: no ONNX model: {str(error)[:MAX_CAUSE]}") from error
    _check_operators(model)
    _check_external_data(model)  # before anything opens a file that the model names
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # nor have the checker's
        raise PublishError(
            f"{file.name}: ONNX's checker refuses it: {str(error)[:MAX_CAUSE]}"
        ) from error
    _check_output(model, spec)
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    per_item = {each.name.lower() for each in spec.inputs if each.per == "item"}
    return OnnxProgram(
        file, {each.name: _declared(each, each.name.lower() in per_item) for each in inputs}
    )


def _check_external_data(model: ModelProto) -> None:
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise PublishError(
                f"the ONNX model keeps {tensor.name or 'a tensor'} in another file, which serving "
                "doesn't read: log it with mlflow.onnx.log_model(..., save_as_external_data=False)"
            )


def _check_operators(model: ModelProto) -> None:
    if model.functions:
        raise PublishError("the ONNX model has functions of its own: inline them (onnx.inliner)")
    domains = [each.domain for each in model.opset_import]
    for graph in _graphs(model.graph):
        domains += [node.domain for node in graph.node]
        if random := [node.op_type for node in graph.node if node.op_type in RANDOM]:
            raise PublishError(
                f"the model draws random numbers ({random[0]}): the same request must get the same "
                "scores"
            )
    if foreign := sorted({*domains} - DOMAINS):
        raise PublishError(
            f"the ONNX model needs operators of {foreign[0]!r}; serving has those of ai.onnx and "
            "ai.onnx.ml"
        )


def _check_output(model: ModelProto, spec: FeatureSpec) -> None:
    outputs = list(model.graph.output)
    if spec.outputs or len(outputs) != 1:
        names = ", ".join(output.name for output in outputs)
        raise PublishError(
            f"an ONNX model must give one output, the score of each item, and it gives {names}: "
            "convert a ranker or a regressor, or keep the score alone (onnx.utils.extract_model); "
            "the feature spec has no outputs for it"
        )
    kind, shape = _tensor(outputs[0])
    if TYPES.get(kind) != "float32" or [size for size in shape[1:] if size != 1]:
        raise PublishError(
            f"output {outputs[0].name}: must be float32, one for each item, and is "
            f"{_type_name(kind)} of {len(shape)} dimensions: {_written(shape)}"
        )


def _declared(value: ValueInfoProto, per_item: bool) -> Declared:  # noqa: FBT001
    kind, shape = _tensor(value)
    if kind not in TYPES:
        raise PublishError(
            f"input {value.name}: the model takes {_type_name(kind)}; convert it with inputs of "
            "float32 or int64"
        )
    if per_item and shape and shape[0] is not None:
        raise PublishError(
            f"input {value.name}: the model takes exactly {shape[0]} row(s); convert it with None "
            "as their number, as FloatTensorType([None, 4]) does"
        )
    return Declared(TYPES[kind], shape)


def _tensor(value: ValueInfoProto) -> tuple[int, tuple[int | None, ...]]:
    """The type of its elements, and its sizes, None where one varies."""
    type_ = value.type
    if not type_.HasField("tensor_type") or not type_.tensor_type.HasField("shape"):
        raise PublishError(f"{value.name}: must be a tensor of a declared shape")
    sizes = type_.tensor_type.shape.dim
    return type_.tensor_type.elem_type, tuple(
        size.dim_value if size.HasField("dim_value") else None for size in sizes
    )


def _type_name(kind: int) -> str:
    return str(helper.tensor_dtype_to_string(kind)).removeprefix("TensorProto.").lower()


def _written(shape: tuple[int | None, ...]) -> str:
    return " x ".join("items" if size is None else str(size) for size in shape)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """It, and those within its operators, such as the body of a loop."""
    todo = [graph]
    while todo:
        yield (each := todo.pop())
        for attribute in _attributes(each):
            todo += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _attributes(graph: GraphProto) -> Iterator[AttributeProto]:
    return chain.from_iterable(node.attribute for node in graph.node)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        sparse = list(graph.sparse_initializer)
        for attribute in _attributes(graph):
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for each in sparse:
            yield from (each.values, each.indices)
