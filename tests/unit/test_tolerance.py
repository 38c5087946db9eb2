"""How far apart two scores may be, by hand."""

import numpy as np
import pytest

from feedmodel.publish.tolerance import allowed_difference, are_near, same, scale_of, within


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


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("shift", [0.0, 1.0, -40.0])
def test_scores_of_any_range_are_compared_by_how_far_apart_they_lie(
    size: float, shift: float
) -> None:
    scores = (np.array([-3.0, -1.0, 0.0, 1.0, 5.0, 0.0]) + shift) * size
    scale = scale_of(scores, None)
    assert scale == pytest.approx((shift * size, 2.0 * size))  # 3, 1, 1 and 5 from the median
    # By hand: a 100,000th of 3, 2, 2, 2, 5 and 2, and a millionth of the score.
    by_hand = np.array([3e-5, 2e-5, 2e-5, 2e-5, 5e-5, 2e-5]) * size + 1e-6 * np.abs(scores)
    assert within(scores, scale) == pytest.approx(by_hand)  # type: ignore[arg-type]
    assert allowed_difference(scores, scale) == pytest.approx(by_hand)  # type: ignore[arg-type]
    for of in (are_near, same):
        assert np.all(of(scores + 0.99 * by_hand, scores, scale))
        assert not np.all(of(scores + 1.01 * by_hand, scores, scale))
        assert not np.all(of(scores[::-1], scores, scale))
        assert not np.all(of(scores * np.nan, scores, scale))


def test_a_few_large_scores_hide_no_small_ones() -> None:
    scores = np.array([*np.linspace(1e-9, 9e-9, 99), 1e9])
    scale = scale_of(scores, None)
    assert not are_near(scores[[1, 0, *range(2, 100)]], scores, scale)[:2].any()


def test_equal_scores_may_be_rounded() -> None:
    scores = np.full(5, 3.0, np.float32)
    scale = scale_of(scores, None)
    assert are_near(np.nextafter(scores, np.float32(4)), scores, scale).all()
    assert not are_near(scores * np.float32(1.00001), scores, scale).any()
