"""From the MLflow artifact to what the engines load: an exported torch program, one ONNX file."""

import logging
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
from feedmodel.publish.inputs import Declared, in_model_terms
from feedmodel.publish.outputs import Combined, Wrapper, in_model_order
from feedmodel.publish.precision import APART, as_float32, half_of
from feedmodel.publish.registry import environment
from feedmodel.publish.signature import output_names
from feedmodel.publish.upload import link
from feedrank.errors import BundleError
from feedrank.features.spec import FeatureSpec
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
    half: tuple[ExportedProgram, ExportedProgram] | None = None  # as logged in 16 bits, and widened


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
        if half_of(program.exported):
            program = _widened(program, spec)
        check_program(program.exported, several_outputs=bool(spec.outputs))
        spec = in_model_terms(spec, declared_inputs(program))
        if sigmoid:
            module = Sigmoid(program.exported.module())
            logits, half = program.exported, program.half
            program = export_module(module, spec, program.inputs)
            program = replace(program, logits=logits, half=half)
        elif spec.outputs:
            spec = in_model_order(spec, program.exported, output_names(artifact))
            half = program.half
            program = export_module(Combined(program.exported.module(), spec), spec, program.inputs)
            program = replace(program, half=half)
    return program


def _widened(program: Program, spec: FeatureSpec) -> Program:
    declared = {
        name: replace(each, type="float32" if each.type in APART else each.type)
        for name, each in declared_inputs(program).items()
    }
    spec = in_model_terms(spec, declared)
    widened = export_module(as_float32(program.exported), spec, program.inputs)
    return replace(widened, half=(program.exported, widened.exported))


def save_program(program: Program, path: Path) -> None:
    """MLflow's own file if there is one, else a new archive."""
    if program.file:
        link(program.file, path)
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


def declared_inputs(program: Program) -> dict[str, Declared]:
    """The model's inputs as torch.export saw them, by name in its order."""
    nodes = {node.name: node for node in program.exported.graph.nodes}
    traced = program.exported.graph_signature.user_inputs
    tensors = [nodes[str(node)].meta["val"] for node in traced]
    return {
        name: Declared(
            str(tensor.dtype).removeprefix("torch."),
            tuple(size if isinstance(size, int) else None for size in tensor.shape),
        )
        for name, tensor in zip(program.inputs, tensors, strict=True)
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
