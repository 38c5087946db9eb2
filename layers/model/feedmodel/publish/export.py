"""From the MLflow artifact to what the engines load: an exported torch program, one ONNX file."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

import mlflow
import torch
from torch.export import Dim, ExportedProgram
from torch.fx import config as fx_config

from feedmodel.errors import PublishError
from feedmodel.publish.admission import check_artifact, check_program
from feedmodel.publish.outputs import Combined, Wrapper
from feedmodel.publish.registry import environment
from feedrank.errors import BundleError
from feedrank.features.spec import FeatureSpec, Input
from feedrank.model.engines.torch import load_program as load_exported

PT2 = "model.pt2"
EXAMPLE_ROWS = 8  # torch.export would take a single row for a constant
SCORES, OUTPUTS = "scores", "outputs"
TYPES = {"float32": torch.float32, "int64": torch.int64}
MAX_CAUSE = 400  # characters


@dataclass(frozen=True, slots=True)
class Program:
    """An exported model. `inputs` are the names of its inputs in its own order; `file` is MLflow's
    archive, if that can be served byte for byte."""

    exported: ExportedProgram
    inputs: tuple[str, ...]
    file: Path | None = None
    logits: ExportedProgram | None = None  # the program before a sigmoid was appended


class Sigmoid(Wrapper):
    """Appends a sigmoid to a model that ends in logits."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.model(*inputs))


def load_program(
    artifact: Path, spec: FeatureSpec, *, allow_pickle: bool = False, sigmoid: bool = False
) -> Program:
    """Raises PublishError for a model that is pickled, that can't be exported or served, or whose
    inputs are not the spec's."""
    file = next((artifact / "data").glob(f"**/{PT2}"), None)
    if sigmoid and spec.outputs:
        raise PublishError("--activation is for one output; write sigmoid() into the spec's score")
    with quiet():
        if file:
            program = _load_exported(file)
        else:
            program = export_module(_load_pickled(artifact, allow_pickle=allow_pickle), spec)
        check_program(program.exported, several_outputs=bool(spec.outputs))
        spec = in_model_terms(spec, program)
        if sigmoid:
            module = Sigmoid(program.exported.module())
            logits = program.exported
            program = replace(export_module(module, spec, program.inputs), logits=logits)
        elif spec.outputs:
            program = export_module(Combined(program.exported.module(), spec), spec, program.inputs)
    return program


def in_model_terms(spec: FeatureSpec, program: Program) -> FeatureSpec:
    """The spec with its inputs in the program's order, by its names, which torch.export writes in
    lower case, and with its shapes. Raises PublishError where the spec describes other inputs."""
    lower = {name.lower(): name for name in program.inputs}
    named = [
        replace(input_, name=lower.get(input_.name.lower(), input_.name)) for input_ in spec.inputs
    ]
    spec = replace(spec, inputs=tuple(named))
    tensors = check_inputs(program, spec)
    by_name = {input_.name: input_ for input_ in spec.inputs}
    return replace(
        spec, inputs=tuple(_with_shape(by_name[name], tensors[name]) for name in program.inputs)
    )


def _with_shape(input_: Input, tensor: torch.Tensor) -> Input:
    shape = tuple(size if isinstance(size, int) else -1 for size in tensor.shape)
    plain = replace(input_, shape=())
    return plain if shape == plain.tensor_shape else replace(input_, shape=shape)


def save_program(program: Program, path: Path) -> None:
    """MLflow's own file if there is one, else a new archive."""
    if program.file:
        path.write_bytes(program.file.read_bytes())
    else:
        torch.export.save(program.exported, path)


def write_onnx(program: Program, spec: FeatureSpec, path: Path) -> None:
    """One file with the weights inside and a dynamic number of items; the same program gives the
    same bytes.

    Raises PublishError that names an operator which ONNX doesn't have.
    """
    with quiet():
        try:
            exported = torch.onnx.export(
                program.exported,
                _example(spec, program.inputs),
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=program.inputs,
                output_names=[SCORES, OUTPUTS] if spec.outputs else [SCORES],
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise PublishError(f"the model can't be exported to ONNX: {_cause(error)}") from error
    if exported is None:
        raise PublishError("the model can't be exported to ONNX")
    model = exported.model_proto
    graph = model.graph
    # Stack traces with this machine's paths, which serving doesn't read.
    described = (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer)
    for part in (*described, *graph.value_info, *model.functions):
        part.ClearField("metadata_props")
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_inputs(program: Program, spec: FeatureSpec) -> dict[str, torch.Tensor]:
    """Compare the model's inputs with the spec's: names, widths, types, and which rows vary. Gives
    the model's, by name.

    Raises PublishError.
    """
    tensors = _placeholders(program)
    described = {input_.name: input_ for input_ in spec.inputs}
    if missing := [name for name in tensors if name not in described]:
        raise PublishError(f"the feature spec lacks the model's input {', '.join(missing)}")
    if extra := [name for name in described if name not in tensors]:
        known = ", ".join(tensors)
        raise PublishError(f"the model has no input {', '.join(extra)}; it takes {known}")
    for name, tensor in tensors.items():
        _check_input(tensor, described[name])
    for input_ in spec.inputs:
        if input_.per == "request" and not all(
            isinstance(size, int) for size in tensors[input_.name].shape
        ):
            raise PublishError(
                f"input {input_.name}: the model takes as many rows of it as there are items; "
                'make it "per": "item" in the spec, or log the model with one row of it in the '
                "input_example"
            )
    return tensors


def _check_input(tensor: torch.Tensor, input_: Input) -> None:
    """Of an input per item the first dimension is the items, and may vary; what is left of the
    shape has a column of the spec for each number."""
    wanted = TYPES[input_.type]
    if tensor.dtype != wanted:
        known = {dtype: name for name, dtype in TYPES.items()}
        raise PublishError(
            f"input {input_.name}: the model takes {tensor.dtype}, not {input_.type}: "
            + (
                f'make it "type": "{known[tensor.dtype]}"'
                if tensor.dtype in known
                else "log model.float(), with an input_example of float32"
            )
        )
    shape = tensor.shape[1:] if input_.per == "item" else tensor.shape
    if not all(isinstance(size, int) for size in shape):
        if input_.per == "request":
            return  # `check_inputs` says what to do
        raise PublishError(f"input {input_.name}: more than the number of items varies in it")
    width = math.prod(shape)
    if width != input_.width:
        raise PublishError(
            f"input {input_.name}: the model takes {width} features, the spec describes "
            f"{input_.width}"
        )
    if input_.per == "item" and (not tensor.shape or isinstance(tensor.shape[0], int)):
        rows = tensor.shape[0] if tensor.shape else 0
        raise PublishError(
            f"input {input_.name}: the model takes exactly {rows} row(s); log it with two rows or "
            "more in the input_example and -1 rows in the signature"
        )


def _placeholders(program: Program) -> dict[str, torch.Tensor]:
    """The model's inputs as torch.export saw them, by name."""
    nodes = {node.name: node for node in program.exported.graph.nodes}
    traced = program.exported.graph_signature.user_inputs
    return {
        name: nodes[str(node)].meta["val"]
        for name, node in zip(program.inputs, traced, strict=True)
    }


def export_module(
    module: torch.nn.Module, spec: FeatureSpec, inputs: Sequence[str] | None = None
) -> Program:
    """`inputs` are the names of the module's inputs in its order. Raises PublishError."""
    names = tuple(inputs or signature(module.forward).parameters)
    per = {input_.name: input_.per for input_ in spec.inputs}
    if missing := [name for name in names if name not in per]:
        raise PublishError(f"the feature spec lacks the model's input {', '.join(missing)}")
    shapes = tuple({0: Dim.AUTO} if per[name] == "item" else None for name in names)
    dynamic = (shapes,) if isinstance(module, Wrapper) else shapes  # *inputs is one argument
    try:
        with without_stack_traces():
            exported = torch.export.export(module, _example(spec, names), dynamic_shapes=dynamic)
    except Exception as error:  # torch.export's errors share no base class
        raise PublishError(f"torch.export can't trace the model: {_cause(error)}") from error
    return Program(exported, names)


def _example(spec: FeatureSpec, names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    inputs = {input_.name: input_ for input_ in spec.inputs}
    return tuple(
        torch.zeros(
            [EXAMPLE_ROWS if size == -1 else size for size in inputs[name].tensor_shape],
            dtype=TYPES[inputs[name].type],
        )
        for name in names
    )


def _load_exported(file: Path) -> Program:
    try:
        exported = load_exported(file)
    except BundleError as error:
        raise PublishError(f"the exported model can't be loaded: {error}") from error
    return Program(exported, tuple(map(str, exported.graph_signature.user_inputs)), file)


def _load_pickled(artifact: Path, *, allow_pickle: bool) -> torch.nn.Module:
    check_artifact(artifact)
    if not allow_pickle:
        raise PublishError(
            "the model is pickled, and unpickling runs whatever code the file holds. Log it with "
            'mlflow.pytorch.log_model(..., serialization_format="pt2"), or, where you trust its '
            "origin, publish it with --allow-pickle; the bundle itself never holds a pickle"
        )
    with environment(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true"):
        try:
            model: torch.nn.Module = mlflow.pytorch.load_model(str(artifact), map_location="cpu")
        except Exception as error:  # unpickling may raise anything
            raise PublishError(
                f"the pickle can't be loaded as a torch.nn.Module: {_cause(error)}"
            ) from error
    return model.eval()


@contextmanager
def without_stack_traces() -> Iterator[None]:
    """torch.export would store each operator's source line, and with it this machine's paths: the
    same model would have another digest on another machine."""
    before = fx_config.do_not_emit_stack_traces
    fx_config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporters, which report missing packages that don't matter here."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            exporter.setLevel(level)


def _cause(error: BaseException) -> str:
    """Of the first error of the chain, which says what was wrong; the later ones say who called."""
    while error.__cause__:
        error = error.__cause__
    return str(error)[:MAX_CAUSE] or type(error).__name__
