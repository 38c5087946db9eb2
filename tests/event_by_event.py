"""Lambda's environments, request by request: what the plan's rates are compared with."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from math import log

SIGMA = 0.4  # of a lognormal service time


@dataclass(frozen=True, slots=True)
class Outcome:
    requests: int
    cold_starts: int
    throttled: int


def run(
    rate: Callable[[float], float],
    peak_per_s: float,
    seconds: float,
    *,
    service_s: float,
    init_s: float,
    keep_alive_s: float,
    most: int = 1_000_000,
    new_in_10_s: int = 1_000,
    seed: int = 0,
    after_s: float = 0.0,
) -> Outcome:
    """Counts from `after_s` on. A request takes the idle environment that was used last, else it
    starts one, else it is refused."""
    source = random.Random(seed)  # noqa: S311 no secret
    mu = log(service_s) - SIGMA**2 / 2
    idle: list[float] = []  # when each became idle, the earliest first
    busy: list[float] = []  # when each becomes idle
    requests = cold_starts = throttled = 0
    now_s, tokens = 0.0, float(new_in_10_s)
    while True:
        gap_s = source.expovariate(peak_per_s)
        now_s += gap_s
        if now_s > seconds:
            return Outcome(requests, cold_starts, throttled)
        tokens = min(float(new_in_10_s), tokens + gap_s * new_in_10_s / 10.0)
        if source.random() * peak_per_s > rate(now_s):
            continue
        while busy and busy[0] <= now_s:
            idle.append(heapq.heappop(busy))
        while idle and idle[0] < now_s - keep_alive_s:
            idle.pop(0)
        counts = now_s >= after_s
        requests += counts
        if idle:
            idle.pop()
            heapq.heappush(busy, now_s + source.lognormvariate(mu, SIGMA))
        elif len(busy) < most and tokens >= 1.0:
            tokens -= 1.0
            cold_starts += counts
            heapq.heappush(busy, now_s + init_s + source.lognormvariate(mu, SIGMA))
        else:
            throttled += counts
