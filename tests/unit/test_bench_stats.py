"""Samples to ratios with an interval around them."""

import numpy as np
import pytest

from feedbench import stats


def test_a_ratio_is_the_median_over_rounds_of_the_medians_ratio() -> None:
    twice = [[2.0, 2.0, 90.0], [4.0, 4.0, 4.0], [20.0, 60.0, 20.0]]
    once = [[1.0, 1.0, 1.0], [2.0, 2.0, 70.0], [10.0, 10.0, 10.0]]

    assert stats.ratio(twice, once) == stats.Estimate(2.0, 2.0, 2.0)


def test_what_falls_on_both_of_a_round_changes_no_ratio() -> None:
    drift = [1.0, 5.0, 2.0, 8.0, 3.0]
    slow, fast = [[3.0 * d] for d in drift], [[2.0 * d] for d in drift]

    ratio = stats.ratio(slow, fast)

    assert ratio.value == pytest.approx(1.5)
    assert ratio.high - ratio.low == pytest.approx(0.0)


def test_rounds_that_have_no_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        stats.ratio([[1.0], [2.0]], [[1.0]])


def test_the_interval_holds_the_value_and_widens_with_the_spread() -> None:
    random = np.random.default_rng(1)
    narrow = stats.estimate(random.normal(10, 0.1, 40).tolist())
    wide = stats.estimate(random.normal(10, 2, 40).tolist())

    assert narrow.low <= narrow.value <= narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low


def test_the_same_samples_give_the_same_interval() -> None:
    samples = [1.0, 4.0, 2.0, 8.0, 5.0]

    assert stats.estimate(samples) == stats.estimate(samples)


def test_the_tail_is_p99_over_p50_of_all_rounds() -> None:
    rounds = [[1.0] * 98 + [3.0, 3.0]] * 10

    assert stats.tail_ratio(rounds).value == pytest.approx(3.0)


def test_a_distribution_has_percentiles_and_a_curve_from_the_least_to_the_most() -> None:
    distribution = stats.distribution([float(n) for n in range(101)])

    curve = distribution.pop("curve")
    assert distribution == {"samples": 101, "p50": 50.0, "p99": 99.0}
    assert (curve[0], curve[-1], len(curve)) == (0.0, 100.0, stats.CURVE_POINTS)
    assert curve == sorted(curve)
