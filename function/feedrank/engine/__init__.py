"""From a matrix to scores."""

from collections.abc import Mapping
from typing import Protocol

from feedrank.domain import FloatArray
from feedrank.errors import ScoringError


class ScoringEngine(Protocol):
    """Scores items: (items,) float32 in [0, 1]. Raises ScoringError."""

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray: ...


def checked(scores: FloatArray, items: int) -> FloatArray:
    """One score per item, each in [0, 1]; NaN is not."""
    flat = scores.reshape(-1)
    if len(flat) != items:
        raise ScoringError(f"the model gave {len(flat)} scores for {items} items")
    if not (flat.min() >= 0.0 and flat.max() <= 1.0):
        raise ScoringError("the model gave a score outside [0, 1]")
    return flat
