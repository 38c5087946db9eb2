"""How far apart two scores of the same item may be. NaN is never near anything.

A score in [0, 1] is measured by its own size. Scores of any range (`"range": null`) have no unit,
and may be 1e-9 or 1e9: they are measured by how far apart they lie,

    allowed = share * max(spread, |score - median|) + 1e-6 * |score|

where the median is that of all scores which are compared, and the spread that of their distances
from it, without those that are 0. The last part is what float32 rounds.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import BoolArray, FloatArray

MAX_APART = 1e-5  # of a score up to 1; of a larger one this share of it
MAX_APART_SHARE = 1e-3  # of the score itself: small scores are ranked, too
MIN_APART = 1e-7  # ONNX Runtime's sigmoid is no closer to torch's near 0
ROUNDING = 1e-6  # of a score of any range


class Scale(NamedTuple):
    """Of scores of any range."""

    median: float
    spread: float


def scale_of(scores: NDArray[Any], range_: tuple[float, float] | None) -> Scale | None:
    """None where the range itself is the scale."""
    if range_:
        return None
    median = float(np.median(scores.astype(np.float64)))
    distances = np.abs(scores - median)
    apart = distances[distances > 0]
    return Scale(median, float(np.median(apart)) if len(apart) else 0.0)


def within(
    expected: NDArray[Any], scale: Scale | None, share: float = MAX_APART
) -> NDArray[np.float64]:
    """How far off each score may be by this share; the shape of `expected`."""
    size = np.abs(expected.astype(np.float64))
    if scale is None:
        return share * np.maximum(1.0, size)
    distance = np.abs(expected - scale.median)
    allowed: NDArray[np.float64] = share * np.maximum(scale.spread, distance) + ROUNDING * size
    return allowed


def allowed_difference(expected: FloatArray, scale: Scale | None = None) -> NDArray[np.float64]:
    """Between ONNX Runtime's score and torch's; the shape of `expected`."""
    if scale:
        return within(expected, scale)
    share = np.maximum(MAX_APART_SHARE * np.abs(expected), MIN_APART)
    return np.minimum(within(expected, None), share)


def are_near(scores: FloatArray, expected: FloatArray, scale: Scale | None = None) -> BoolArray:
    """Item by item: whether ONNX Runtime scores as torch does."""
    near: BoolArray = np.abs(scores - expected) <= allowed_difference(expected, scale)
    return near


def same(scores: FloatArray, expected: FloatArray, scale: Scale | None = None) -> bool:
    """Whether one engine gives the same scores in another batch. Stricter than `are_near`, since
    small scores have no minimum tolerance."""
    allowed = within(expected, scale)
    if scale is None:
        allowed = np.minimum(allowed, MAX_APART_SHARE * np.abs(expected))
    return bool((np.abs(scores - expected) <= allowed).all())
