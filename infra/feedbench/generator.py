"""HTTP load, from a process of its own on the last core, so that nothing here delays it.

Closed loop: as many requests as a server takes on a few connections, by wrk, which costs next to
nothing itself. Open loop: requests at fixed moments, by this module as a program:

    python -m feedbench.generator URL BODIES SECONDS RATE_PER_S
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from http import HTTPStatus
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp

from feedbench.machine import on_last_core, run
from feedops.errors import OperationError
from feedops.local.background import JSON

CONNECTIONS = 8
GRACE_S = 30.0
SCRIPT = Path(__file__).with_name("requests.lua")


def requests_per_s(url: str, bodies: Path, seconds: float) -> float:
    """In a closed loop. `bodies` is a file, one body a line. Raises OperationError where wrk is
    missing, or where a request failed."""
    wrk = shutil.which("wrk")
    if not wrk:
        raise OperationError("wrk is not installed: apt-get install wrk, or brew install wrk")
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(SCRIPT)]
    load = _run([wrk, *options, url], seconds, BODIES=str(bodies))
    if load["errors"]:
        raise OperationError(f"{load['errors']} of {load['requests']} requests to {url} failed")
    return float(load["requests"] / load["seconds"])


def steady(url: str, bodies: Path, seconds: float, rate_per_s: float) -> dict[str, Any]:
    """What `open_loop` returns."""
    arguments = map(str, (url, bodies, seconds, rate_per_s))
    return _run([sys.executable, "-m", __name__, *arguments], seconds)


def _run(line: list[str | Path], seconds: float, **variables: str) -> dict[str, Any]:
    """The last line that it prints. Raises OperationError where the generator itself fails."""
    files = {"stdout": subprocess.PIPE, "env": {**os.environ, **variables}}
    done = run(on_last_core(line), timeout=seconds + GRACE_S, **files)
    return dict(json.loads(done.stdout.splitlines()[-1]))


async def open_loop(
    url: str, bodies: list[bytes], rate_per_s: float, seconds: float
) -> dict[str, Any]:
    """Requests at fixed moments, whatever became of those before: a slow response delays nobody,
    and a request's time runs from when it was due."""
    latencies_ms: list[float] = []
    errors = 0
    supply = cycle(bodies)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=JSON) as client:

        async def send(due: float) -> None:
            nonlocal errors
            try:
                async with client.post(url, data=next(supply)) as response:
                    await response.read()
                    errors += response.status != HTTPStatus.OK
            except aiohttp.ClientError:
                errors += 1
            latencies_ms.append(1_000 * (perf_counter() - due))

        start = perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate_per_s * seconds)):
                due = start + number / rate_per_s
                await asyncio.sleep(max(0.0, due - perf_counter()))
                group.create_task(send(due))
    return {"latencies_ms": latencies_ms, "errors": errors}


if __name__ == "__main__":
    address, file, duration_s, rate = sys.argv[1:]
    lines = Path(file).read_bytes().splitlines()
    result = asyncio.run(open_loop(address, lines, float(rate), float(duration_s)))
    sys.stdout.write(json.dumps(result) + "\n")
