"""HTTP load, from a process of its own on the last core, so that nothing here delays it.

Closed loop: as many requests as a server takes on a few connections; by wrk where it is installed,
which costs next to nothing itself, else by a small client, whose cost lowers all results alike.
Open loop: requests at fixed moments.

    python -m feedbench.generator PORT BODIES SECONDS PATH RATE_PER_S
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp

from feedbench.machine import on_last_core
from feedops.errors import OperationError
from feedops.local.processes import LINES_QUOTED, LOCALHOST

CONNECTIONS = 8
GRACE_S = 30.0
SCRIPT = Path(__file__).with_name("requests.lua")
JSON = {"content-type": "application/json"}


def name() -> str:
    return "wrk" if shutil.which("wrk") else "the built-in client"


def drive(
    port: int, bodies: Path, seconds: float, *, path: str = "/predict", rate_per_s: float = 0.0
) -> dict[str, Any]:
    """What `closed_loop` returns, or with a rate `open_loop`. `bodies` is a file, one body a line.

    Raises OperationError where the generator itself fails.
    """
    wrk = shutil.which("wrk")
    numbers = map(str, (port, bodies, seconds, path, rate_per_s))
    line: list[str | Path] = [sys.executable, "-m", "feedbench.generator", *numbers]
    if wrk and not rate_per_s:
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
        line = [wrk, *options, "-s", SCRIPT, f"http://{LOCALHOST}:{port}{path}"]
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
    load: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return load


async def closed_loop(port: int, path: str, bodies: list[bytes], seconds: float) -> dict[str, Any]:
    """What wrk does, more slowly."""
    messages = cycle(
        b"POST %b HTTP/1.1\r\nHost: local\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        for body in bodies
    )
    latencies_ms: list[float] = []
    errors = 0
    start = perf_counter()

    async def connection() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
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
    spent_s = perf_counter() - start
    latencies_ms.sort()
    p50, p99 = (latencies_ms[len(latencies_ms) * percent // 100] for percent in (50, 99))
    counts = {"requests": len(latencies_ms), "seconds": spent_s, "errors": errors}
    return counts | {"p50_ms": p50, "p99_ms": p99}


async def open_loop(
    url: str, bodies: list[bytes], rate_per_s: float, seconds: float
) -> dict[str, Any]:
    """Requests at fixed moments, whatever became of those before: a slow response delays nobody,
    and a request's time runs from when it was due."""
    latencies_ms: list[float] = []
    statuses: dict[str, int] = {}
    supply = cycle(bodies)
    connector = aiohttp.TCPConnector(limit=0)

    async with aiohttp.ClientSession(url, connector=connector, headers=JSON) as client:

        async def send(due: float) -> None:
            try:
                async with client.post("/predict", data=next(supply)) as response:
                    await response.read()
                    status = str(response.status)
            except aiohttp.ClientError as error:
                status = type(error).__name__
            latencies_ms.append(1_000 * (perf_counter() - due))
            statuses[status] = statuses.get(status, 0) + 1

        start = perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate_per_s * seconds)):
                due = start + number / rate_per_s
                await asyncio.sleep(max(0.0, due - perf_counter()))
                group.create_task(send(due))
    errors = sum(count for status, count in statuses.items() if status != "200")
    return {"latencies_ms": latencies_ms, "statuses": statuses, "errors": errors}


def _main(port: str, bodies: str, seconds: str, path: str, rate_per_s: str) -> None:
    lines, rate = Path(bodies).read_bytes().splitlines(), float(rate_per_s)
    loop = (
        open_loop(f"http://{LOCALHOST}:{port}", lines, rate, float(seconds))
        if rate
        else closed_loop(int(port), path, lines, float(seconds))
    )
    sys.stdout.write(json.dumps(asyncio.run(loop)) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
