"""How far apart two scores of the same item may be. NaN is never near anything."""

import numpy as np

from feedrank.domain import BoolArray, FloatArray

MAX_APART = 1e-5  # of a score up to 1; of a larger one this share of it
MAX_APART_SHARE = 1e-3  # of the score itself: small scores are ranked, too
MIN_APART = 1e-7  # ONNX Runtime's sigmoid is no closer to torch's near 0


def allowed_difference(expected: FloatArray) -> FloatArray:
    """Between ONNX Runtime's score and torch's; the shape of `expected`."""
    size = np.abs(expected)
    share = np.maximum(MAX_APART_SHARE * size, MIN_APART)
    allowed: FloatArray = np.minimum(MAX_APART * np.maximum(1, size), share)
    return allowed


def are_near(scores: FloatArray, expected: FloatArray) -> BoolArray:
    """Item by item: whether ONNX Runtime scores as torch does."""
    near: BoolArray = np.abs(scores - expected) <= allowed_difference(expected)
    return near


def same(scores: FloatArray, expected: FloatArray) -> bool:
    """Whether one engine gives the same scores in another batch. Stricter than `are_near`, since
    small scores have no minimum tolerance."""
    size = np.abs(expected)
    allowed = np.minimum(MAX_APART * np.maximum(1, size), MAX_APART_SHARE * size)
    return bool((np.abs(scores - expected) <= allowed).all())
