"""The ways to run the function on Lambda's own environments: capacity, latency, bill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from feedops.plan import bill, prices
from feedops.plan.bill import Bill
from feedops.plan.environments import Course, Function, simulate
from feedops.plan.kept_ready import kept_ready
from feedops.plan.queues import Array, all_erlang_b, beyond
from feedops.plan.workload import Workload

UNLIMITED = 1_000_000
ENVIRONMENTS = "environments"
P99 = 0.99
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """`capacity`: environments, tasks or instances at the busiest time. Cold starts, requests that
    spill over from provisioned concurrency, and refused requests are per day. `around`: the bill
    of the gateway, logs and records."""

    name: str
    unit: str
    capacity: int
    p99_ms: float
    worst_minute_p99_ms: float
    compute: Bill
    around: Bill
    cold_starts: float = 0.0
    most_starts_in_10_s: float = 0.0
    spilled: float = 0.0
    throttled: float = 0.0
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def compute_usd(self) -> float:
        return sum(self.compute.values())

    @property
    def usd(self) -> float:
        return self.compute_usd + sum(self.around.values())


def on_demand(workload: Workload, refused_per_s: Array) -> tuple[Way, Course]:
    init_ms = workload.measured.init_ms
    course = _course(workload, workload.traffic.rates_per_s - refused_per_s, init_ms)
    cold = float(course.cold_starts.sum())
    compute = bill.of_lambda(workload, warm=_served(course) - cold, cold=cold, init_ms=init_ms)
    parameters = {"WarmStart": "none"}
    return _way(
        "on demand",
        workload,
        course,
        refused_per_s,
        init_ms=init_ms,
        compute=compute,
        parameters=parameters,
    ), course


def snapstart(workload: Workload, refused_per_s: Array) -> tuple[Way, Course]:
    restore_ms = workload.measured.restore_ms
    course = _course(workload, workload.traffic.rates_per_s - refused_per_s, restore_ms)
    restores = float(course.cold_starts.sum())
    compute = bill.of_snapstart(workload, requests=_served(course), restores=restores)
    parameters = {"WarmStart": "snapstart"}
    return _way(
        "SnapStart",
        workload,
        course,
        refused_per_s,
        init_ms=restore_ms,
        compute=compute,
        parameters=parameters,
    ), course


def provisioned(workload: Workload, refused_per_s: Array) -> tuple[Way, Course]:
    """What is above the environments that are kept ready, or above the requests/s that Lambda
    sends them, spills over to others, which start on demand."""
    kept, traffic, init_ms = kept_ready(workload), workload.traffic, workload.measured.init_ms
    ready, accepted_per_s = kept.per_step(traffic), traffic.rates_per_s - refused_per_s
    spill_per_s = _spill_per_s(workload, accepted_per_s, ready)
    course = _course(workload, spill_per_s, init_ms, reserved=kept.busy)
    spilled, cold = _served(course), float(course.cold_starts.sum())
    requests = float((accepted_per_s - spill_per_s).sum()) * traffic.step_s
    kept_s = float(ready.sum()) * traffic.step_s
    compute = _sum(
        bill.of_provisioned(workload, requests=requests, kept_s=kept_s),
        bill.of_lambda(workload, warm=spilled - cold, cold=cold, init_ms=init_ms),
    )
    first = np.arange(0, len(ready), round(course.step_s / traffic.step_s))
    whole = replace(
        course,
        requests=np.add.reduceat(accepted_per_s, first) * traffic.step_s,
        environments=course.environments + np.maximum.reduceat(ready, first),
    )
    way = _way(
        "provisioned",
        workload,
        whole,
        refused_per_s,
        init_ms=init_ms,
        compute=compute,
        parameters=kept.parameters(),
    )
    return replace(way, spilled=spilled * workload.per_day), whole


def refused_per_s(workload: Workload) -> Array:
    """Of each step, the requests/s above those of the account, whatever serves the rest."""
    rates_per_s = workload.traffic.rates_per_s
    if not workload.concurrency:
        return np.zeros_like(rates_per_s)
    most_per_s = workload.concurrency * prices.quota("lambda_requests_per_environment")
    return _each(rates_per_s, lambda rate: beyond(rate, most_per_s))


def _course(workload: Workload, rates_per_s: Array, init_ms: float, *, reserved: int = 0) -> Course:
    """Of environments that start on demand, beside those that are reserved."""
    function = Function(
        service_s=workload.measured.service.mean_ms / 1_000.0,
        init_s=init_ms / 1_000.0,
        keep_alive_s=workload.keep_alive_s,
        most=workload.concurrency - reserved if workload.concurrency else UNLIMITED,
        new_in_10_s=round(prices.quota("lambda_scaling")),
    )
    return simulate(rates_per_s, workload.traffic.step_s, function)


def _each(rates_per_s: Array, function: Callable[[float], float]) -> Array:
    """Of each rate; the same rates only once."""
    values, where = np.unique(rates_per_s, return_inverse=True)
    return np.array([function(float(value)) for value in values])[where]


def _spill_per_s(workload: Workload, rates_per_s: Array, ready: Array) -> Array:
    """Poisson numbers above ten a second for each, and those that find all of them busy."""
    per_s = prices.quota("lambda_requests_per_environment")
    service_s = workload.measured.service.mean_ms / 1_000.0
    pairs = np.stack([rates_per_s, ready], axis=1)
    values, where = np.unique(pairs, axis=0, return_inverse=True)
    spills = []
    for rate, count in values.tolist():
        above = beyond(rate, per_s * count)
        busy = all_erlang_b(round(count), rate * service_s)[-1]
        spills.append(above + (rate - above) * float(busy))
    return np.array(spills)[where.reshape(-1)]


def _served(course: Course) -> float:
    return float(course.requests.sum() - course.throttled.sum())


def _sum(*bills: Bill) -> dict[str, float]:
    names = dict.fromkeys(name for each in bills for name in each)
    return {name: sum(each.get(name, 0.0) for each in bills) for name in names}


def _way(
    name: str,
    workload: Workload,
    course: Course,
    refused_per_s: Array,
    *,
    init_ms: float,
    compute: Bill,
    parameters: Mapping[str, str],
) -> Way:
    service = workload.measured.service
    refused = float(refused_per_s.sum()) * workload.traffic.step_s
    cold, requests = _by(course.cold_starts, course), _by(course.requests, course)
    cold_share = float(course.cold_starts.sum() / course.requests.sum())
    # A minute of less than a request tells nothing by itself, but the whole time does.
    shares = np.divide(cold, requests, out=np.zeros_like(cold), where=requests >= 1.0)
    worst = max(cold_share, float(shares.max()))
    return Way(
        name,
        ENVIRONMENTS,
        ceil(float(course.environments.max()) - 1e-6),
        service.quantile_ms(P99, min(1.0, cold_share), init_ms),
        service.quantile_ms(P99, min(1.0, worst), init_ms),
        compute,
        bill.of_gateway(workload),
        cold_starts=float(course.cold_starts.sum()) * workload.per_day,
        most_starts_in_10_s=float(_by(course.cold_starts, course, 10.0).max()),
        throttled=(float(course.throttled.sum()) + refused) * workload.per_day,
        parameters=parameters,
    )


def _by(values: Array, course: Course, seconds: float = MINUTE_S) -> Array:
    """Sums over so many seconds, or over a step if that is longer."""
    steps = max(1, round(seconds / course.step_s))
    return np.add.reduceat(values, np.arange(0, len(values), steps))
