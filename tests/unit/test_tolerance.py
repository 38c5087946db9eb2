"""How far apart two scores may be, by hand."""

import numpy as np
import pytest

from feedmodel.publish.tolerance import allowed_difference, are_near, same


@pytest.mark.parametrize(
    ("score", "allowed"),
    [
        (1.0, 1e-5),
        (0.5, 1e-5),
        (0.01, 1e-5),  # a thousandth of it
        (0.002, 2e-6),
        (1e-4, 1e-7),
        (1e-6, 1e-7),  # no less: ONNX Runtime's own precision
        (0.0, 1e-7),
    ],
)
def test_onnx_may_differ_from_torch_by_a_thousandth_within_limits(
    score: float, allowed: float
) -> None:
    expected = np.array([score])  # float64, so that nothing rounds
    assert allowed_difference(expected) == pytest.approx(allowed)  # type: ignore[arg-type]
    for sign in (-1, 1):
        within, beyond = expected + sign * 0.99 * allowed, expected + sign * 1.01 * allowed
        assert are_near(within, expected).all()  # type: ignore[arg-type]
        assert not are_near(beyond, expected).any()  # type: ignore[arg-type]


def test_nan_is_near_nothing() -> None:
    nan, half = np.array([np.nan], np.float32), np.array([0.5], np.float32)
    assert not are_near(nan, half).any()
    assert not are_near(half, nan).any()
    assert not are_near(nan, nan).any()


def test_small_scores_of_one_engine_are_compared_by_their_own_size() -> None:
    expected = np.array([2e-7, 0.5], np.float32)
    assert same(expected, expected)
    assert not same(expected + np.array([1e-9, 0], np.float32), expected)
    assert same(expected + np.array([0, 9e-6], np.float32), expected)
    assert not same(expected + np.array([0, 2e-5], np.float32), expected)
    assert not same(np.array([2e-7, np.nan], np.float32), expected)
    assert not same(expected, np.array([np.nan, 0.5], np.float32))
    small = np.linspace(2e-7, 1.2e-6, 100, dtype=np.float32)
    assert not same(small[::-1], small)
