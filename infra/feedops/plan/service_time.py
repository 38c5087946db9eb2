"""The distribution of a service time, from its percentiles."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from feedops.errors import OperationError
from feedops.plan.queues import Array

POINTS = 4_000  # of equal weight, that stand for the distribution
_SHARES = (np.arange(POINTS) + 0.5) / POINTS
_NORMAL = np.array([NormalDist().inv_cdf(share) for share in _SHARES])


@dataclass(frozen=True)
class ServiceTime:
    """Lognormal between percentiles, so two of them make a lognormal distribution. Below the lowest
    and above the highest the nearest piece goes on. `percentiles_ms`: from percents."""

    percentiles_ms: Mapping[float, float]

    def __post_init__(self) -> None:
        """Raises OperationError unless the values are positive and rise."""
        percents = sorted(self.percentiles_ms)
        values = [self.percentiles_ms[percent] for percent in percents]
        rising = all(low <= high for low, high in pairwise(values))
        if not (len(values) > 1 and values[0] > 0.0 and rising and values[-1] < np.inf):
            shown = ", ".join(f"p{p:g} {self.percentiles_ms[p]:g}" for p in percents)
            raise OperationError(f"percentiles must be positive and must not fall: {shown} ms")

    @cached_property
    def points_ms(self) -> Array:
        """Quantiles of equal weight, from the lowest to the highest."""
        percents = sorted(self.percentiles_ms)
        at = np.array([NormalDist().inv_cdf(percent / 100.0) for percent in percents])
        logs = np.log([self.percentiles_ms[percent] for percent in percents])
        slopes = np.diff(logs) / np.diff(at)
        piece = np.clip(np.searchsorted(at, _NORMAL) - 1, 0, len(slopes) - 1)
        values: Array = np.exp(logs[piece] + slopes[piece] * (_NORMAL - at[piece]))
        return values

    @property
    def mean_ms(self) -> float:
        return float(self.points_ms.mean())

    @property
    def billed_ms(self) -> float:
        """The mean of the times rounded up to whole milliseconds, as Lambda bills them."""
        return float(np.ceil(self.points_ms).mean())

    @property
    def variation(self) -> float:
        """The squared coefficient of variation."""
        return float(self.points_ms.var() / self.mean_ms**2)

    def scaled(self, mean_ms: float) -> "ServiceTime":
        """The same shape around another mean."""
        ratio = mean_ms / self.mean_ms
        return ServiceTime({p: ratio * ms for p, ms in self.percentiles_ms.items()})

    def quantile_ms(self, share: float, cold_share: float = 0.0, init_ms: float = 0.0) -> float:
        """The time that `share` of the requests don't exceed if some of them wait for an init."""
        warm = self.points_ms
        times = np.concatenate([warm, warm + init_ms])
        weights = (
            np.concatenate([np.full(POINTS, 1.0 - cold_share), np.full(POINTS, cold_share)])
            / POINTS
        )
        order = np.argsort(times)
        reached = np.cumsum(weights[order])
        return float(times[order][np.searchsorted(reached, share * (1.0 - 1e-12))])
