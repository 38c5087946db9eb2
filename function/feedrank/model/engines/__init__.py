"""From a matrix to scores."""

from collections.abc import Mapping
from typing import Literal, Protocol, TypeGuard

from feedrank.domain import FloatArray
from feedrank.errors import ScoringError

Device = Literal["auto", "cpu", "cuda"]


class ScoringEngine(Protocol):
    """Scores items: (items,) float32. Raises ScoringError."""

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray: ...


class Stopper(Protocol):
    """Stops its inference once `terminate` is set; the name is ONNX Runtime's."""

    terminate: bool


class StoppableEngine(Protocol):
    """One that can stop an inference, which then raises ScoringError."""

    def stopper(self) -> Stopper:
        """A new one for each inference."""

    def score(
        self, inputs: Mapping[str, FloatArray], stopper: Stopper | None = None
    ) -> FloatArray: ...


class ExplainingEngine(Protocol):
    """One that can give the outputs of which a score is made. A stoppable one takes its stopper
    here too."""

    def explain(
        self, inputs: Mapping[str, FloatArray], *stopper: Stopper
    ) -> tuple[FloatArray, FloatArray]:
        """The scores, (items,), and the outputs, (items, outputs). Raises ScoringError."""


class Explaining:
    """Stands in for an engine in one request, and keeps the outputs of its last inference: so that
    is scored, stopped and waited for as any other."""

    outputs: FloatArray

    def __init__(self, engine: ExplainingEngine) -> None:
        self._engine = engine
        if is_stoppable(engine):
            self.stopper = engine.stopper

    def score(self, inputs: Mapping[str, FloatArray], stopper: Stopper | None = None) -> FloatArray:
        of = () if stopper is None else (stopper,)
        scores, self.outputs = self._engine.explain(inputs, *of)
        return scores


def can_explain(engine: object) -> TypeGuard[ExplainingEngine]:
    return hasattr(engine, "explain")


def is_stoppable(engine: object) -> TypeGuard[StoppableEngine]:
    return hasattr(engine, "stopper")


def one_per_item(scores: FloatArray, items: int) -> FloatArray:
    """(items,), whatever shape the model gave them. Raises ScoringError."""
    flat = scores.reshape(-1)
    if len(flat) != items:
        raise ScoringError(f"the model gave {len(flat)} scores for {items} items")
    return flat
