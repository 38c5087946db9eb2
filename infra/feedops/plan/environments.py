"""Lambda's execution environments over a day, one by one, without simulating single requests.

One request at a time goes to an environment, first to the idle one that was used last, as in the
local pool. So environment n + 1 is started when a request finds n busy ones, and removed when that
hasn't happened for the keep-alive time. How often it happens follows from the rate: with n servers
and Poisson arrivals, Erlang's B is the share of requests that find all of them busy, whatever the
distribution of the service time. If the rates of arrival at level n sum up to H over the keep-alive
time, then at most n environments exist with probability exp(-H): the order statistics of the
busiest moment. The load follows the rate with the delay of one service time (the modified offered
load).

While an environment initializes, it serves nobody: requests that come meanwhile start more of
them. That is what makes a sudden rise cost many times the environments that it needs, so after one
the steps are as short as a fraction of the init.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil, exp, sqrt

import numpy as np

from feedops.plan.queues import Array, all_erlang_b

# The load is as good as where the rate brings it: as a share, and in Erlangs.
SETTLED, NEGLIGIBLE = 0.02, 1e-3
FEW = 0.2  # environments that start during an init: then they don't slow each other down
PARTS_OF_AN_INIT = 12
SHORTEST_S = 1e-9
EXISTS = 1e-3  # an environment, if it is missing with less than this probability
NEARLY_ALL = 1.0 - 1e-15
LONGEST_STEP_S, STEPS_OF_KEEP_ALIVE = 10.0, 20.0
STEPS_OF_STEADY = 10
EVEN = 1.1  # rates in a step up to this ratio apart are one
SCALING_S = 10.0  # the time that Lambda's limit on new environments is given for


@dataclass(frozen=True, slots=True)
class Function:
    """`most`: the concurrency that it may use."""

    service_s: float
    init_s: float
    keep_alive_s: float
    most: int
    new_in_10_s: int


@dataclass(frozen=True, slots=True)
class Course:
    """Of each step: requests, cold starts and refused requests in it; environments at its end."""

    step_s: float
    requests: Array
    cold_starts: Array
    throttled: Array
    environments: Array


def simulate(rates_per_s: Array, rate_step_s: float, function: Function) -> Course:
    """The expected course for a rate of requests in each step. It begins with a load as in the
    first step, and environments for it. Its own steps are longer."""
    group = max(
        1, int(min(LONGEST_STEP_S, function.keep_alive_s / STEPS_OF_KEEP_ALIVE) / rate_step_s)
    )
    pool = _Pool(function, float(rates_per_s.max()), group * rate_step_s)
    pool.begin(float(rates_per_s[0]))
    starts = range(0, len(rates_per_s), group)
    is_steady = not np.ptp(rates_per_s)  # then a few steps tell all of them
    simulated = starts[:STEPS_OF_STEADY] if is_steady else starts
    rows = np.array([pool.step(rates_per_s[at : at + group], rate_step_s) for at in simulated])
    rows = np.pad(rows, ((0, len(starts) - len(rows)), (0, 0)), mode="edge")
    requests = np.add.reduceat(rates_per_s, np.array(starts)) * rate_step_s
    return Course(group * rate_step_s, requests, *rows.T)


class _Pool:
    def __init__(self, function: Function, peak_per_s: float, step_s: float) -> None:
        self._function, self._step_s = function, step_s
        needed = peak_per_s * function.service_s
        rush = function.new_in_10_s * (1.0 + function.init_s / SCALING_S)
        rush = min(rush, peak_per_s * (function.init_s + function.service_s))
        bound = ceil(needed + 10.0 * sqrt(needed) + rush + 50.0)
        self._levels = np.arange(min(bound, function.most) + 1.0)
        steps = max(1, round(function.keep_alive_s / step_s))
        self._visits = deque([np.zeros(len(self._levels) - 1)] * steps, maxlen=steps)
        self._sum = np.zeros(len(self._levels) - 1)  # of those steps
        self._initializing: deque[tuple[float, float]] = deque()  # (ready at, how many)
        self._tokens = float(function.new_in_10_s)
        self._load = self._now_s = 0.0
        self._known: tuple[float, float] = (-1.0, -1.0)

    def begin(self, rate_per_s: float) -> None:
        """As after a long time at this rate."""
        self._load = rate_per_s * self._function.service_s
        self._solve(rate_per_s)
        visits = self._hazard[:-1] * self._step_s
        self._visits.extend([visits] * (self._visits.maxlen or 0))
        self._sum = np.sum(self._visits, axis=0)

    def step(self, rates_per_s: Array, rate_step_s: float) -> tuple[float, float, float]:
        """Cold starts, throttled requests, environments at the end."""
        # The oldest step leaves the keep-alive time while this one passes: half of it on average.
        self._sum = np.maximum(0.0, self._sum - self._visits[0] / 2.0)
        visits = np.zeros_like(self._sum)
        parts = [(float(rate), rate_step_s) for rate in rates_per_s]
        if rates_per_s.max() <= EVEN * rates_per_s.min():
            parts = [(float(rates_per_s.mean()), rate_step_s * len(rates_per_s))]
        results = [self._run(rate, length_s, visits) for rate, length_s in parts]
        self._sum = np.maximum(0.0, self._sum - self._visits[0] / 2.0)
        self._visits.append(visits)
        cold_starts, throttled = np.sum(results, axis=0).tolist()
        return cold_starts, throttled, float(np.sum(1.0 - self._at_most()))

    def _run(self, rate_per_s: float, left_s: float, visits: Array) -> tuple[float, float]:
        """At one rate: cold starts and throttled requests."""
        cold_starts = throttled = 0.0
        while left_s > SHORTEST_S:
            part_s, is_rush = self._part(rate_per_s, left_s)
            cold, refused = self._advance(rate_per_s, part_s, visits, is_rush=is_rush)
            cold_starts, throttled = cold_starts + cold, throttled + refused
            left_s -= part_s
        return cold_starts, throttled

    def _part(self, rate_per_s: float, left_s: float) -> tuple[float, bool]:
        """The length of the next part of a step, and whether environments start faster than they
        initialize."""
        function = self._function
        target = rate_per_s * function.service_s
        part_s = left_s
        if abs(target - self._load) > max(SETTLED * max(target, self._load), NEGLIGIBLE):
            part_s = min(part_s, max(function.service_s / 2.0, 1e-3))
        self._solve(rate_per_s)
        pending = self._pending(SHORTEST_S)
        overflow_per_s = float(self._overflow(rate_per_s, pending)[:-1].sum())
        is_rush = pending > FEW or overflow_per_s * function.init_s > FEW
        if is_rush:
            part_s = min(part_s, max(function.init_s / PARTS_OF_AN_INIT, 1e-3))
        return part_s, is_rush

    def _pending(self, part_s: float) -> float:
        """The environments that initialize, on average over the next part."""
        while self._initializing and self._initializing[0][0] <= self._now_s:
            self._initializing.popleft()
        return sum(
            count * min(1.0, (ready_s - self._now_s) / part_s)
            for ready_s, count in self._initializing
        )

    def _advance(
        self, rate_per_s: float, part_s: float, visits: Array, *, is_rush: bool
    ) -> tuple[float, float]:
        """Adds to `visits` how often each level was reached, and returns cold starts and throttled
        requests."""
        pending = self._pending(part_s)
        hazards = np.interp(self._levels - pending, self._levels, self._hazard, left=rate_per_s)
        reached = hazards[:-1] * part_s
        at_most = self._at_most()
        overflow = self._overflow(rate_per_s, pending) * part_s
        starts = at_most * -np.expm1(-reached)
        wanted = float(overflow[:-1].sum()) if is_rush else float(starts.sum())
        started = self._taken(min(wanted, float(at_most.sum())), part_s)
        if is_rush or started < wanted:
            reached = _lowest_first(started, at_most, reached)
        visits += reached
        self._sum += reached
        self._now_s += part_s
        if started > 0.0:
            self._initializing.append((self._now_s + self._function.init_s, started))
        self._follow(rate_per_s, part_s)
        return started, float(overflow[-1]) + max(0.0, wanted - started)

    def _follow(self, rate_per_s: float, part_s: float) -> None:
        """The load approaches what the rate brings, within the service time."""
        service_s = self._function.service_s
        target = rate_per_s * service_s
        self._load = target + (self._load - target) * exp(-part_s / service_s)

    def _taken(self, wanted: float, part_s: float) -> float:
        """As many new environments as Lambda allows in this part."""
        most = float(self._function.new_in_10_s)
        self._tokens = min(most, self._tokens + most / SCALING_S * part_s)
        started = min(wanted, self._tokens)
        self._tokens -= started
        return started

    def _at_most(self) -> Array:
        """The probability that at most n environments exist, for each n below the most."""
        return np.exp(-self._sum)

    def _overflow(self, rate_per_s: float, pending: float) -> Array:
        """Requests/s that find all environments busy, by how many exist."""
        number = np.diff(self._at_most(), prepend=0.0, append=1.0)
        lost = np.interp(self._levels - pending, self._levels, self._lost, left=1.0)
        return rate_per_s * number * lost

    def _solve(self, rate_per_s: float) -> None:
        """Erlang's B at the present load, and how often level n + 1 is reached from the usual."""
        if self._known == (rate_per_s, self._load):
            return
        self._known = (rate_per_s, self._load)
        self._lost = all_erlang_b(len(self._levels) - 1, self._load)
        with np.errstate(divide="ignore", over="ignore"):
            gaps_s = 1.0 / (rate_per_s * self._lost)
            # From the usual number of busy ones up, each level in turn has to be reached.
            usual = min(int(self._load), len(gaps_s) - 1)
            gaps_s[usual:] = np.cumsum(gaps_s[usual:])
        self._hazard = 1.0 / gaps_s


def _lowest_first(started: float, at_most: Array, reached: Array) -> Array:
    """How often each level is reached if so many environments start, each level once and the
    lowest that lack one first. Those that exist are reached as ever."""
    allowed = np.clip(started - (np.cumsum(at_most) - at_most), 0.0, at_most)
    share = np.minimum(allowed / np.maximum(at_most, EXISTS), NEARLY_ALL)
    return np.where(at_most < EXISTS, reached, -np.log1p(-share))
