"""Samples by turns, and from samples to numbers: percentiles, and ratios of neighbours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

SEED = 20_261_122
RESAMPLES = 2_000
INTERVAL = (2.5, 97.5)  # percent: a 95 % interval
CURVE_POINTS = 200

Rounds = Sequence[Sequence[float]] | NDArray[np.float64]
Samples = Rounds | Sequence[float]  # or one a round


K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the 95 % bootstrap interval around it."""

    value: float
    low: float
    high: float


def distribution(samples: Sequence[float] | NDArray[np.float64]) -> dict[str, Any]:
    """In the samples' own unit; `curve` has the quantiles at even steps from 0 to 1."""
    p50, p99 = np.percentile(samples, [50, 99]).tolist()
    curve = np.quantile(samples, np.linspace(0, 1, CURVE_POINTS)).round(3).tolist()
    return {"samples": len(samples), "p50": p50, "p99": p99, "curve": curve}


def estimate(rounds: Samples, statistic: Callable[[Any], Any] = np.median) -> Estimate:
    """A statistic of all samples. The interval draws whole rounds: a hiccup spans neighbours."""
    values = np.asarray(rounds, dtype=float)
    draws = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile([statistic(values[draw]) for draw in draws], INTERVAL).tolist()
    return Estimate(float(statistic(values)), low, high)


def ratio(numerator: Samples, denominator: Samples) -> Estimate:
    """How many times the one is the other: the median over rounds of the two medians' ratio.

    Round by round, the n-th of the one was measured next to the n-th of the other.
    """
    pairs: Iterable[tuple[Any, Any]] = zip(numerator, denominator, strict=True)
    return estimate([float(np.median(a) / np.median(b)) for a, b in pairs])


def tail_ratio(rounds: Rounds) -> Estimate:
    """p99 over p50."""
    return estimate(rounds, lambda samples: np.divide(*np.percentile(samples, [99, 50])))


def by_turns(samplers: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """A sample of each in every round, so that the machine's drift falls on all of them. A first
    round, which warms them up, is dropped."""
    samples = [{name: sample() for name, sample in samplers.items()} for _ in range(rounds + 1)]
    return {name: [each[name] for each in samples[1:]] for name in samplers}
