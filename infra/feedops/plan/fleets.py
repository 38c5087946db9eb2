"""The ways with servers: Lambda Managed Instances, Fargate and a GPU container, one queue each.

A server handles one request at a time: a process of the function, or a uvicorn worker. The load
balancer or Lambda's router sends a request to a free one, so a fleet is one queue with many
servers.
"""

from dataclasses import dataclass

import numpy as np

from feedops.plan import bill
from feedops.plan.bill import Bill
from feedops.plan.prices import DAYS, usd
from feedops.plan.queues import Array, Queue
from feedops.plan.service_time import ServiceTime
from feedops.plan.ways import MINUTE_S, P99, Way
from feedops.plan.workload import Workload

MOST_BUSY = 0.6  # of the servers, on average over a minute
AHEAD_MIN, AFTER_MIN = 5, 15  # instances start so long before they are needed, and stop after
HOUR_S = 3_600.0
TASK_VCPUS, TASK_GB = 1, 2
INSTANCE_VCPUS = 4  # m7i.xlarge and g5.xlarge


@dataclass(frozen=True, slots=True)
class Unit:
    """A task or an instance. `servers`: how many requests it handles at a time; `fewest`: units
    for availability."""

    name: str
    unit: str
    servers: int
    service: ServiceTime
    usd_per_hour: float
    fewest: int


def managed_instances(workload: Workload) -> Way:
    """The function's processes, one to a vCPU, with the duration that Lambda's own environments
    have; requests are billed as there, durations not."""
    price = bill.instance_usd("m7i_xlarge", fee=True)
    service = workload.measured.service
    unit = Unit("Managed Instances", "m7i.xlarge", INSTANCE_VCPUS, service, price, fewest=3)
    requests = bill.monthly(workload, workload.traffic.requests)
    around = bill.of_gateway(workload)
    return _way(workload, unit, {"Lambda requests": usd("lambda_requests", requests / 1e6)}, around)


def fargate(workload: Workload) -> Way:
    """One uvicorn worker to a task of one vCPU."""
    price = TASK_VCPUS * usd("fargate_vcpu") + TASK_GB * usd("fargate_memory")
    service = _of_server(workload, workload.measured.server_per_s)
    unit = Unit("Fargate", "1 vCPU", 1, service, price, fewest=2)
    return _way(workload, unit, {}, bill.of_load_balancer(workload))


def gpu(workload: Workload) -> Way:
    """As many requests as was measured on a GPU, or else as its CPUs serve without one."""
    servers = 1 if workload.gpu_per_s else INSTANCE_VCPUS
    service = _of_server(workload, workload.gpu_per_s or workload.measured.server_per_s)
    price = bill.instance_usd("g5_xlarge")
    unit = Unit("GPU", "g5.xlarge", servers, service, price, fewest=2)
    return _way(workload, unit, {}, bill.of_load_balancer(workload))


def _of_server(workload: Workload, per_s: float) -> ServiceTime:
    """The shape of the measured times, around the mean that this rate means."""
    return workload.measured.service.scaled(1_000.0 / per_s)


def _way(workload: Workload, unit: Unit, also: Bill, around: Bill) -> Way:
    minutes = _minutes(workload)
    counts = needed(minutes, unit)
    running = _ahead(counts)
    hours = float(running.sum()) * MINUTE_S / HOUR_S * _minute_share(workload, len(minutes))
    p99_ms = max(
        _p99_ms(float(minutes[running == count].max()), int(count), unit)
        for count in np.unique(running)
    )
    compute = {**also, unit.unit: hours * workload.per_day * DAYS * unit.usd_per_hour}
    return Way(unit.name, unit.unit, int(running.max()), p99_ms, p99_ms, compute, around)


def _minutes(workload: Workload) -> Array:
    """The highest rate of each minute."""
    steps = max(1, round(MINUTE_S / workload.traffic.step_s))
    rates = workload.traffic.rates_per_s
    return np.maximum.reduceat(rates, np.arange(0, len(rates), steps))


def _minute_share(workload: Workload, minutes: int) -> float:
    """The last minute, or the only one, may be a part of one; a step may be longer than one."""
    return workload.traffic.duration_s / (minutes * MINUTE_S)


def needed(rates_per_s: Array, unit: Unit) -> Array:
    """The units that keep the servers at most so busy."""
    load = rates_per_s * unit.service.mean_ms / 1_000.0
    return np.maximum(unit.fewest, np.ceil(load / (MOST_BUSY * unit.servers) - 1e-9))


def _ahead(counts: Array) -> Array:
    """As a schedule has them: there before they are needed, and kept for a while."""
    padded = np.pad(counts, (AFTER_MIN, AHEAD_MIN), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, AFTER_MIN + 1 + AHEAD_MIN)
    return np.asarray(windows.max(axis=1))


def _p99_ms(rate_per_s: float, count: int, unit: Unit) -> float:
    service = unit.service
    servers = count * unit.servers
    queue = Queue(servers, rate_per_s, service.mean_ms / 1_000.0, service.variation)
    return 1_000.0 * queue.response_quantile_s(P99, service.points_ms / 1_000.0)
