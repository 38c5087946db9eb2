"""From a matrix to scores."""

from collections.abc import Mapping
from typing import Protocol

from feedrank.domain import FloatArray
from feedrank.errors import ScoringError


class ScoringEngine(Protocol):
    """Scores items: (items,) float32. Raises ScoringError."""

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray: ...


def one_per_item(scores: FloatArray, inputs: Mapping[str, FloatArray]) -> FloatArray:
    """(items,), whatever shape the model gave them. Raises ScoringError."""
    flat, items = scores.reshape(-1), max(map(len, inputs.values()))
    if len(flat) != items:
        raise ScoringError(f"the model gave {len(flat)} scores for {items} items")
    return flat
