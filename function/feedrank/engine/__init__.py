"""From a matrix to scores."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from feedrank.domain import FloatArray
from feedrank.errors import ScoringError


class ScoringEngine(Protocol):
    """Scores items: (items,) float32. Raises ScoringError."""

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray: ...


@runtime_checkable
class StoppableEngine(ScoringEngine, Protocol):
    """One whose run can be ended from outside."""

    def stops(self, after_s: float) -> AbstractContextManager[Callable[[], bool]]:
        """Inside, runs end after so long; what it gives tells whether they were ended."""


def one_per_item(scores: FloatArray, inputs: Mapping[str, FloatArray]) -> FloatArray:
    """(items,), whatever shape the model gave them. Raises ScoringError."""
    flat, items = scores.reshape(-1), max(map(len, inputs.values()))
    if len(flat) != items:
        raise ScoringError(f"the model gave {len(flat)} scores for {items} items")
    return flat
