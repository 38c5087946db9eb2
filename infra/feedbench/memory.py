"""Resident memory of a warm environment, and what it gains over very many requests."""

import asyncio
import json
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from feedbench import traffic
from feedbench.plan import Plan
from feedbench.probe import run_probe
from feedbench.results import Measurement, row
from feedops.errors import OperationError
from feedops.local.emulator import ExecutionEnvironment

SIZES = (5, 20, 50)  # items
EVENTS = 64
WARM_CALLS = 300
LEAK_BYTES = 1_024  # a request
GROWTH_BAR_MB = 5.0


def measure(plan: Plan) -> Measurement:
    files = [
        traffic.write_events(
            plan.scratch / f"memory-{items}.json", traffic.requests(plan.bundle, items, EVENTS)
        )
        for items in SIZES
    ]
    steady = _run(plan, files, plan.effort.memory_requests, leak_bytes=0)
    plan.say("memory: the control that leaks")
    leaking = _run(plan, files, plan.effort.leak_requests, leak_bytes=LEAK_BYTES)
    growth_mb, leaked_mb = growth(steady["readings_mb"]), growth(leaking["readings_mb"])
    if leaked_mb <= GROWTH_BAR_MB:
        raise OperationError(f"the leaking control grew by {leaked_mb:.1f} MB: the check is blind")
    warm_mb, how = steady["readings_mb"][0], "in-process"
    notes: tuple[str, ...] = ()
    try:
        warm_mb, how = asyncio.run(_peak_in_emulator_mb(plan, files)), "peak, in the emulator"
    except OperationError as error:
        notes = (f"memory was read outside the emulator: {str(error).splitlines()[0]}",)
    rows = (
        row("memory", "Memory of a warm environment", warm_mb, bar=300, unit="MB", note=how),
        row(
            "memory growth",
            "Memory that it gains over 100,000 requests",
            growth_mb,
            bar=GROWTH_BAR_MB,
            unit="MB",
            portable=False,
            note=f"{plan.effort.memory_requests:,} requests; a control that leaks 1 KiB a request "
            f"gained {leaked_mb:.0f} MB over {plan.effort.leak_requests:,} and is found out",
        ),
    )
    return Measurement(rows, {"memory": {"steady": steady, "leaking": leaking}}, notes)


def growth(readings_mb: list[float]) -> float:
    """From the first reading to the end, which is the median of the last tenth."""
    last = sorted(readings_mb[-max(1, len(readings_mb) // 10) :])
    return last[len(last) // 2] - readings_mb[0]


def _run(plan: Plan, files: list[Path], requests: int, *, leak_bytes: int) -> Any:  # noqa: ANN401
    options = {
        "events": list(map(str, files)),
        "requests": requests,
        "leak_bytes": leak_bytes,
    }
    return run_probe(plan, plan.target, "memory.py", options, keep_output=False)


async def _peak_in_emulator_mb(plan: Plan, files: list[Path]) -> float:
    environment = await ExecutionEnvironment.start(
        plan.target.on_emulator.function(plan.variables),
        log=plan.scratch / "memory.log",
        temporary=plan.scratch / "memory",
    )
    try:
        events = cycle(event for file in files for event in json.loads(file.read_bytes()))
        for event in islice(events, WARM_CALLS):
            await environment.invoke(json.dumps(event).encode())
        return float(environment.peak_memory_mb())
    finally:
        await environment.stop()
