"""Samples to numbers: percentiles, and ratios of things that were measured by turns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 20_261_122
RESAMPLES = 2_000
INTERVAL = (2.5, 97.5)  # percent: a 95 % interval
PERCENTILES = (5, 25, 50, 75, 95, 99)

Rounds = Sequence[Sequence[float]]
Samples = Rounds | Sequence[float]  # or one a round


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the 95 % bootstrap interval around it."""

    value: float
    low: float
    high: float


def summary(samples: Sequence[float]) -> dict[str, float | int]:
    """In the samples' own unit."""
    percentiles = np.percentile(samples, PERCENTILES).tolist()
    named = {f"p{p}": value for p, value in zip(PERCENTILES, percentiles, strict=True)}
    return {"samples": len(samples), **named, "max": float(np.max(samples))}


def curve(samples: Sequence[float], points: int = 200) -> list[float]:
    """The samples' quantiles at even steps from 0 to 1."""
    quantiles: list[float] = np.quantile(samples, np.linspace(0, 1, points)).round(3).tolist()
    return quantiles


def estimate(rounds: Sequence[float]) -> Estimate:
    """The median over rounds."""
    values = np.asarray(rounds, dtype=float)
    draws = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    return _interval(float(np.median(values)), np.median(values[draws], axis=1))


def ratio(numerator: Samples, denominator: Samples) -> Estimate:
    """How many times the one is the other: the median over rounds of the two medians' ratio.

    Round by round, the n-th of the one was measured next to the n-th of the other.
    """
    pairs: Iterable[tuple[Any, Any]] = zip(numerator, denominator, strict=True)
    return estimate([float(np.median(a) / np.median(b)) for a, b in pairs])


def tail_ratio(rounds: Rounds) -> Estimate:
    """p99 over p50 of all samples. The interval draws whole rounds: a hiccup spans neighbours."""
    random = np.random.default_rng(SEED)
    samples = [np.asarray(samples, dtype=float) for samples in rounds]
    draws = random.integers(0, len(samples), (RESAMPLES // 10, len(samples)))
    resampled = [_tail(np.concatenate([samples[at] for at in draw])) for draw in draws]
    return _interval(_tail(np.concatenate(samples)), np.array(resampled))


def _tail(samples: NDArray[np.float64]) -> float:
    p50, p99 = np.percentile(samples, [50, 99])
    return float(p99 / p50)


def _interval(value: float, resampled: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(resampled, INTERVAL).tolist()
    return Estimate(value, low, high)
