"""Resident memory of a warm environment, and what it gains over very many requests."""

import asyncio
import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from feedbench.bench import Bench
from feedbench.results import BARS, Row, row
from feedops.errors import OperationError

SIZES = (5, 20, 50)  # items
WARM_CALLS = 300
LEAK_BYTES = 1_024  # a request
GROWTH_BAR_MB = BARS["memory growth"]["bar"]


def measure(bench: Bench) -> Iterator[Row]:
    files, effort = [bench.events(items) for items in SIZES], bench.effort
    steady = _requests(bench, files, effort.memory_requests)
    bench.say("memory: the control that leaks")
    leaking = _requests(bench, files, effort.leak_requests, leak_bytes=LEAK_BYTES)
    leaked_mb = growth(leaking["readings_mb"])
    if not leaked_mb > GROWTH_BAR_MB:
        raise OperationError(f"the leaking control grew by {leaked_mb:.1f} MB: the check is blind")
    try:
        warm_mb, source = asyncio.run(_peak_mb(bench, files)), "peak, in the emulator"
    except OperationError as error:
        warm_mb, source = steady["readings_mb"][0], "in-process"
        reason = str(error).splitlines()[0]
        bench.notes.append(f"memory was read outside the emulator: {reason}")
    yield row("memory", warm_mb, source)
    yield row(
        "memory growth",
        growth(steady["readings_mb"]),
        f"{effort.memory_requests:,} requests; a control that leaks 1 KiB a request "
        f"gained {leaked_mb:.0f} MB over {effort.leak_requests:,} and is found out",
    )
    bench.details["memory"] = {"steady": steady, "leaking": leaking}


def growth(readings_mb: list[float]) -> float:
    """From the first reading to the end, which is the median of the last tenth."""
    last = sorted(readings_mb[-max(1, len(readings_mb) // 10) :])
    return last[len(last) // 2] - readings_mb[0]


def _requests(bench: Bench, files: list[str], count: int, leak_bytes: int = 0) -> Any:  # noqa: ANN401
    return bench.probe("environment.memory", events=files, requests=count, leak_bytes=leak_bytes)


async def _peak_mb(bench: Bench, files: list[str]) -> float:
    events = [event for file in files for event in json.loads(Path(file).read_bytes())]  # noqa: ASYNC240
    async with bench.environment("memory") as environment:
        for event in islice(cycle(events), WARM_CALLS):
            await environment.invoke(json.dumps(event).encode())
        return float(environment.peak_memory_mb())
