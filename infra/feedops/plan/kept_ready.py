"""How much provisioned concurrency a day needs: one number, or two and the hours between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf, sqrt

import numpy as np

from feedops.plan import prices
from feedops.plan.queues import Array, all_erlang_b
from feedops.plan.traffic import DAY_S, Traffic
from feedops.plan.workload import Workload

SPILL_SHARE = 0.001  # of the requests, at most, that find all environments busy
SPREADS = 3.1  # of a Poisson number, that 99.9 % of the seconds stay below
HOURS = 24
HOUR_S = 3_600
WORTH_A_SCHEDULE = 0.9  # of what one number for the whole day costs


@dataclass(frozen=True, slots=True)
class KeptReady:
    """`busy` environments from one hour until another, UTC, else `quiet` ones."""

    quiet: int
    busy: int
    busy_from: int = 0
    busy_until: int = HOURS

    @property
    def has_schedule(self) -> bool:
        return self.quiet < self.busy

    def per_step(self, traffic: Traffic) -> Array:
        times_s = np.arange(len(traffic.rates_per_s)) * traffic.step_s
        hours = (times_s // HOUR_S) % HOURS
        after, before = hours >= self.busy_from, hours < self.busy_until
        is_busy = after & before if self.busy_from < self.busy_until else after | before
        return np.where(is_busy, float(self.busy), float(self.quiet))

    def parameters(self) -> Mapping[str, str]:
        """Of the stack."""
        fixed = {"WarmStart": "provisioned", "ProvisionedMin": str(self.quiet)}
        if not self.has_schedule:
            return {**fixed, "ProvisionedMax": str(self.busy)}
        return {
            **fixed,
            "ProvisionedMax": str(self.busy),
            "BusyMin": str(self.busy),
            "BusyFrom": f"cron(0 {self.busy_from} * * ? *)",
            "BusyUntil": f"cron(0 {self.busy_until} * * ? *)",
        }


def needed(rate_per_s: float, service_s: float) -> int:
    """The environments that take all but a thousandth of the requests. Lambda sends each ten
    requests a second at most, however short they are."""
    per_s = prices.quota("lambda_requests_per_environment")
    by_rate = ceil((rate_per_s + SPREADS * sqrt(rate_per_s)) / per_s)
    load = rate_per_s * service_s
    lost = all_erlang_b(ceil(load + 10.0 * sqrt(load) + 20.0), load)
    return max(1, by_rate, int(np.argmax(lost <= SPILL_SHARE)))


def most_ready(workload: Workload) -> float:
    """That the account's concurrency allows."""
    unreserved = prices.quota("lambda_unreserved")
    return workload.concurrency - unreserved if workload.concurrency else inf


def kept_ready(workload: Workload) -> KeptReady:
    """Two numbers only where a schedule saves a tenth or more, and the traffic is a day. Only for
    an account that allows one or more."""
    traffic, service_s = workload.traffic, workload.measured.service.mean_ms / 1_000.0
    most = most_ready(workload)
    always = int(min(most, needed(traffic.peak_per_s, service_s)))
    flat = KeptReady(always, always)
    if traffic.duration_s != DAY_S:
        return flat
    hourly = [
        needed(float(rates.max()), service_s) for rates in np.split(traffic.rates_per_s, HOURS)
    ]
    plans = [
        KeptReady(max(_outside(hourly, start, end), 1), always, start, end)
        for start in range(HOURS)
        for end in range(HOURS)
        if start != end and _outside(hourly, start, end) < always
    ]
    best = min(plans, key=_environment_hours, default=flat)
    worth = _environment_hours(best) < WORTH_A_SCHEDULE * HOURS * always
    return best if worth else flat


def _outside(hourly: list[int], start: int, end: int) -> int:
    """The most that an hour outside of these needs."""
    return max(
        count
        for hour, count in enumerate(hourly)
        if (hour < start or hour >= end if start < end else end <= hour < start)
    )


def _environment_hours(kept: KeptReady) -> int:
    busy_hours = (kept.busy_until - kept.busy_from) % HOURS or HOURS
    return busy_hours * kept.busy + (HOURS - busy_hours) * kept.quiet
