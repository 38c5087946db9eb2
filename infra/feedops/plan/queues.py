"""Closed formulas of queueing theory: loss, waiting, response times.

Erlang's B and C are for Poisson arrivals. For service times that are not exponential, the wait is
scaled as Allen and Cunneen do (A. O. Allen, Probability, Statistics, and Queueing Theory, 1990).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import erfc, exp, floor, inf, lgamma, pi, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST_COUNTED = 1_000.0
LEAST_LOAD = 1e-12  # below it nothing is ever busy


def erlang_b(servers: int, load: float) -> float:
    """The share of arrivals that find all servers busy and are lost. `load` in Erlangs."""
    return float(all_erlang_b(servers, load)[servers])


def all_erlang_b(most_servers: int, load: float) -> Array:
    """Erlang's B of 0, 1, ... `most_servers` servers: the Poisson probability of so many, as a
    share of that of at most so many."""
    servers = np.arange(most_servers + 1, dtype=np.float64)
    if load < LEAST_LOAD:
        return np.where(servers == 0, 1.0, 0.0)
    logs = servers * np.log(load) - _log_factorials(most_servers)
    terms = np.exp(logs - logs.max())
    sums = np.cumsum(terms)
    # Far below the load the terms vanish; there nearly all that the servers don't carry is lost.
    known = terms > 0.0
    lost = np.maximum(0.0, 1.0 - servers / load)
    return np.where(known, terms / np.where(known, sums, 1.0), np.where(servers < load, lost, 0.0))


@cache
def _log_factorials(largest: int) -> Array:
    return np.array([lgamma(number + 1) for number in range(largest + 1)])


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that have to wait; all of them if the servers can't carry the load."""
    if load >= servers:
        return 1.0
    lost = erlang_b(servers, load)
    return lost / (1.0 - load / servers * (1.0 - lost))


@dataclass(frozen=True, slots=True)
class Queue:
    """Servers with one queue, first come first served. `variation` is the squared coefficient of
    variation of the service time: 0 if it is constant, 1 if it is exponential."""

    servers: int
    rate_per_s: float
    service_s: float
    variation: float = 1.0

    @property
    def load(self) -> float:
        return self.rate_per_s * self.service_s

    @property
    def utilization(self) -> float:
        return self.load / self.servers

    @property
    def waiting_share(self) -> float:
        return erlang_c(self.servers, self.load)

    @property
    def mean_wait_s(self) -> float:
        if self.utilization >= 1.0:
            return inf
        return self.waiting_share * self._mean_wait_of_waiting_s

    @property
    def _mean_wait_of_waiting_s(self) -> float:
        free = self.servers * (1.0 - self.utilization)
        return self.service_s / free * (1.0 + self.variation) / 2.0

    def longer_wait_share(self, wait_s: Array) -> Array:
        """The share of arrivals that wait longer. The waits of those that wait are exponential."""
        waits = np.exp(-np.maximum(wait_s, 0.0) / self._mean_wait_of_waiting_s)
        return np.where(wait_s < 0.0, 1.0, self.waiting_share * waits)

    def response_quantile_s(self, share: float, service_s: Array) -> float:
        """The response time that `share` of the requests don't exceed. `service_s` are service
        times of equal weight."""
        if self.utilization >= 1.0:
            return inf

        def slower(response_s: float) -> float:
            return float(self.longer_wait_share(response_s - service_s).mean())

        return bisect(lambda s: slower(s) <= 1.0 - share, 0.0, 10.0 * float(service_s.max()) + 1.0)


def bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest value from which on the condition holds, to a millionth of the range."""
    while not holds(high):
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def beyond(mean: float, limit: float) -> float:
    """How many of a second's arrivals are above a limit: the mean of a Poisson number's excess; of
    large numbers as of a normal distribution."""
    if mean <= MOST_COUNTED:
        counts = np.arange(floor(limit) + 1, dtype=np.float64)
        logs = counts * np.log(max(mean, LEAST_LOAD)) - mean - _log_factorials(len(counts) - 1)
        return max(0.0, mean - limit + float(((limit - counts) * np.exp(logs)).sum()))
    spread = sqrt(mean)
    distance = (limit - mean) / spread
    density = exp(-distance * distance / 2.0) / sqrt(2.0 * pi)
    tail = 0.5 * erfc(distance / sqrt(2.0))
    return max(0.0, spread * (density - distance * tail))
