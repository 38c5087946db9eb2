"""HTTP load, from a process of its own on the last core, so that nothing here delays it.

Closed loop: as many requests as a server takes on a few connections; by wrk where it is installed,
which costs next to nothing itself, else by a small client, whose cost lowers all results alike.
Open loop: requests at fixed moments.

    python -m feedbench.generator URL BODIES SECONDS RATE_PER_S
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from feedbench.machine import on_last_core
from feedbench.traffic import JSON
from feedops.errors import OperationError
from feedops.local.processes import LINES_QUOTED

CONNECTIONS = 8
GRACE_S = 30.0
SCRIPT = Path(__file__).with_name("requests.lua")


def name() -> str:
    return "wrk" if shutil.which("wrk") else "the built-in client"


def drive(url: str, bodies: Path, seconds: float, rate_per_s: float = 0.0) -> dict[str, Any]:
    """What `closed_loop` returns, or with a rate `open_loop`. `bodies` is a file, one body a line.

    Raises OperationError where the generator itself fails.
    """
    arguments = map(str, (url, bodies, seconds, rate_per_s))
    line: list[str | Path] = [sys.executable, "-m", __name__, *arguments]
    if (wrk := shutil.which("wrk")) and not rate_per_s:
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
        line = [wrk, *options, "-s", SCRIPT, url]
    done = subprocess.run(
        on_last_core(line),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + GRACE_S,
        env={**os.environ, "BODIES": str(bodies)},
    )
    if done.returncode:
        last = done.stderr.splitlines()[-LINES_QUOTED:]
        raise OperationError("\n".join(["the load generator failed:", *last]))
    return dict(json.loads(done.stdout.splitlines()[-1]))


async def closed_loop(url: str, bodies: list[bytes], seconds: float) -> dict[str, Any]:
    """What wrk does, more slowly."""
    address = urlsplit(url)
    messages = cycle(
        b"POST %b HTTP/1.1\r\nHost: local\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (address.path.encode(), len(body), body)
        for body in bodies
    )
    latencies_ms: list[float] = []
    errors, start = 0, perf_counter()

    async def connection() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        sent = start
        while sent < start + seconds:
            sent = perf_counter()
            writer.write(next(messages))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            errors += b" 200 " not in head.partition(b"\r\n")[0]
            latencies_ms.append(1_000 * (perf_counter() - sent))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    spent_s, count = perf_counter() - start, len(latencies_ms)
    p50, p99 = (sorted(latencies_ms)[count * percent // 100] for percent in (50, 99))
    counts = {"requests": count, "seconds": spent_s, "errors": errors}
    return {**counts, "p50_ms": p50, "p99_ms": p99}


async def open_loop(
    url: str, bodies: list[bytes], rate_per_s: float, seconds: float
) -> dict[str, Any]:
    """Requests at fixed moments, whatever became of those before: a slow response delays nobody,
    and a request's time runs from when it was due."""
    latencies_ms: list[float] = []
    statuses: Counter[str] = Counter()
    supply = cycle(bodies)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=JSON) as client:

        async def send(due: float) -> None:
            try:
                async with client.post(url, data=next(supply)) as response:
                    await response.read()
                    status = str(response.status)
            except aiohttp.ClientError as error:
                status = type(error).__name__
            latencies_ms.append(1_000 * (perf_counter() - due))
            statuses[status] += 1

        start = perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate_per_s * seconds)):
                due = start + number / rate_per_s
                await asyncio.sleep(max(0.0, due - perf_counter()))
                group.create_task(send(due))
    errors = statuses.total() - statuses["200"]
    return {"latencies_ms": latencies_ms, "statuses": dict(statuses), "errors": errors}


def _main(url: str, bodies: str, seconds: str, rate_per_s: str) -> None:
    lines, rate = Path(bodies).read_bytes().splitlines(), float(rate_per_s)
    loop = (
        open_loop(url, lines, rate, float(seconds))
        if rate
        else closed_loop(url, lines, float(seconds))
    )
    sys.stdout.write(json.dumps(asyncio.run(loop)) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
