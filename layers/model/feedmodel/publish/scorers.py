"""What publishing compares: torch, and ONNX Runtime on the bundle's files as in a container."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from feedmodel.publish.export import Program
from feedrank.domain import FloatArray, Query
from feedrank.errors import ScoringError
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.model.engines.onnx import OnnxEngine

MAX_CAUSE = 200  # characters of an engine's own error that a message quotes

Inputs = dict[str, FloatArray]  # by name; (items, features), or (1, features) per request


@dataclass(frozen=True, slots=True)
class ScoredQuery:
    query: Query
    inputs: Inputs
    expected: FloatArray  # (items,) by torch


class Scorers:
    """One model by both engines. `logits` is set where publishing appends a sigmoid."""

    def __init__(self, spec: FeatureSpec, onnx: Path, snapshot: Path, program: Program) -> None:
        self.spec = spec
        self.onnx = OnnxEngine(onnx, threads=1)
        self.torch = torch_scorer(program.exported, program.inputs)
        self.logits = program.logits and torch_scorer(program.logits, program.inputs)
        self.per_item = {input_.name for input_ in spec.inputs if input_.per == "item"}
        self._store = SnapshotStore(snapshot, spec)
        self._matrix = MatrixBuilder(spec, self._store.vocabularies)

    def inputs(self, query: Query) -> Inputs:
        return self._matrix.build(query, self._store.look_up(query))


def torch_scorer(
    exported: ExportedProgram, names: Sequence[str], *, flat: bool = True
) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
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
