"""What publishing compares: torch, and ONNX Runtime on the bundle's files as in a container."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch.export import ExportedProgram

from feedmodel.publish.export import Program
from feedmodel.publish.onnx_models import OnnxProgram
from feedrank.domain import FloatArray, Query
from feedrank.errors import DeadlineExceededError, ScoringError
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.model import inference
from feedrank.model.engines.onnx import OnnxEngine
from feedrank.model.self_test import LONGEST_S

MAX_CAUSE = 200  # characters of an engine's own error that a message quotes

Score = Callable[[Mapping[str, FloatArray]], FloatArray]  # may raise ScoringError
Inputs = dict[str, FloatArray]  # by name; (items, features), or (1, features) per request


@dataclass(frozen=True, slots=True)
class ScoredQuery:
    query: Query
    inputs: Inputs
    expected: FloatArray  # (items,) by torch


class Scorers:
    """One model by both engines. `logits` is set where publishing appends a sigmoid. Of a model
    that came as ONNX there is no torch: ONNX Runtime stands in, with a limit of time."""

    def __init__(
        self, spec: FeatureSpec, onnx: Path, snapshot: Path, program: Program | OnnxProgram
    ) -> None:
        self.spec = spec
        self.onnx = OnnxEngine(onnx, threads=1)
        self.half = None if isinstance(program, OnnxProgram) else program.half
        self.inputs_in_order = tuple(program.inputs)
        self.logits: Score | None = None
        if isinstance(program, OnnxProgram):
            self.torch, self.truth = bounded_scorer(self.onnx), "ONNX Runtime"
        else:
            self.torch, self.truth = torch_scorer(program.exported, program.inputs), "torch"
            if program.logits:
                self.logits = torch_scorer(program.logits, program.inputs)
        self.per_item = {input_.name for input_ in spec.inputs if input_.per == "item"}
        self._store = SnapshotStore(snapshot, spec)
        self._matrix = MatrixBuilder(spec, self._store.vocabularies)
        self.candidates = CandidateFeatures(spec, self._store.vocabularies)

    def inputs(self, query: Query) -> Inputs:
        return self._matrix.build(query, self._store.look_up(query))

    def takes(self, inputs: Inputs) -> bool:
        """Whether the model gives scores for them."""
        try:
            self.torch(inputs)
        except ScoringError:
            return False
        return True


def bounded_scorer(engine: OnnxEngine) -> Score:
    """Stops a model that never ends. It raises ScoringError."""

    def score(inputs: Mapping[str, FloatArray]) -> FloatArray:
        try:
            return inference.score(engine, inputs, perf_counter() + LONGEST_S, "self_test")
        except DeadlineExceededError:
            raise ScoringError(f"the model runs for more than {LONGEST_S:g} s") from None

    return score


def torch_scorer(exported: ExportedProgram, names: Sequence[str], *, flat: bool = True) -> Score:
    """A function that gives (items,) float32, or the model's own shape where it isn't `flat`.
    `names` are the inputs in the program's order. Like the engine, it raises ScoringError where the
    model can't be run."""
    module = exported.module()

    def score(inputs: Mapping[str, FloatArray]) -> FloatArray:
        tensors = (torch.from_numpy(inputs[name]) for name in names)
        try:
            with torch.inference_mode():
                result = module(*tensors)
            first = result if isinstance(result, torch.Tensor) else result[0]
            scores: FloatArray = first.numpy()
        except Exception as error:  # a model may raise anything
            raise ScoringError("torch could not run the model") from error
        return scores.reshape(-1) if flat else scores

    return score


def quoted(error: ScoringError) -> str:
    """The beginning of the engine's own text."""
    return str(error.__cause__ or error)[:MAX_CAUSE]
