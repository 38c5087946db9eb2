"""The command's options, made a workload."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from feedops.errors import OperationError
from feedops.plan import measured, prices
from feedops.plan.measured import BASELINE, Measured
from feedops.plan.service_time import ServiceTime
from feedops.plan.traffic import NAMES, traffic
from feedops.plan.workload import Delivery, Workload

RATE_PER_S = 10_000.0
MEMORY_MB = 1_769  # of the stack, unless its MemorySize says more
PERCENTS = (50.0, 95.0, 99.0)
MOST_AT_ONCE = 50_000  # requests: the concurrency that AWS raises a quota to ends about there


class Given(NamedTuple):
    """None, or 0 for a concurrency: see the option's help for what it means then."""

    rate_per_s: float | None = None
    curve: str = "constant"
    bench: Path | None = None
    log: Path | None = None
    percentiles_ms: tuple[float | None, float | None, float | None] = (None, None, None)
    init_ms: float | None = None
    restore_ms: float | None = None
    memory_mb: int | None = None
    server_per_s: float | None = None
    gpu_per_s: float = 0.0
    concurrency: int = 0
    keep_alive_s: float | None = None
    target_p99_ms: float = 300.0
    delivery: Delivery = "logs"
    reads: float = 0.0


def workload(given: Given) -> Workload:
    """Raises OperationError for what can't be planned."""
    rate_per_s = given.rate_per_s
    if rate_per_s is None and given.curve in NAMES:
        rate_per_s = RATE_PER_S
    day, found = traffic(given.curve, rate_per_s), _measured(given)
    at_once = day.peak_per_s * found.service.mean_ms / 1_000.0
    if not at_once <= MOST_AT_ONCE:
        raise OperationError(
            f"{at_once:,.0f} requests at a time are more than a region's Lambda takes "
            f"({MOST_AT_ONCE:,}): plan the part of one region"
        )
    return Workload(
        traffic=day,
        measured=found,
        keep_alive_s=given.keep_alive_s or prices.assumption("keep_alive_s"),
        target_p99_ms=given.target_p99_ms,
        concurrency=given.concurrency,
        delivery=given.delivery,
        reads=given.reads,
        gpu_per_s=given.gpu_per_s,
    )


def _measured(given: Given) -> Measured:
    """The benchmark's values, replaced by those of a log, replaced by those given."""
    found = measured.of_benchmark(given.bench or BASELINE, given.memory_mb or MEMORY_MB)
    if given.log:
        found = measured.of_log(given.log, found)
    percentiles = {p: ms for p, ms in zip(PERCENTS, given.percentiles_ms, strict=True) if ms}
    if percentiles:
        if len(percentiles) < len(PERCENTS):
            raise OperationError("--p50-ms, --p95-ms and --p99-ms belong together: give all three")
        found = replace(found, service=ServiceTime(percentiles), source="given")
    return replace(
        found,
        init_ms=given.init_ms or found.init_ms,
        restore_ms=given.restore_ms or found.restore_ms,
        memory_mb=given.memory_mb or found.memory_mb,
        server_per_s=given.server_per_s or found.server_per_s,
    )
