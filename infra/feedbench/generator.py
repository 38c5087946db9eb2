"""A closed-loop HTTP load: as many requests as a server takes on a few connections.

wrk where it is installed, which costs next to nothing itself; else a small client of our own, whose
own cost then lowers all contestants' numbers alike.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

from feedbench.machine import on_last_core
from feedops.errors import OperationError
from feedops.local.processes import LOCALHOST

CONNECTIONS = 8
GRACE_S = 30.0
SCRIPT = Path(__file__).with_name("requests.lua")


@dataclass(frozen=True, slots=True)
class Load:
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def name() -> str:
    return "wrk" if shutil.which("wrk") else "the built-in client"


def drive(port: int, path: str, bodies: Path, seconds: float) -> Load:
    """Raises OperationError where any answer is not a 200."""
    wrk = shutil.which("wrk")
    arguments = [str(port), path, str(bodies), str(seconds)]
    if wrk:
        whole_seconds = max(1, round(seconds))
        line: list[str | Path] = [
            *(wrk, "-t1", f"-c{CONNECTIONS}", f"-d{whole_seconds}s", "-s", SCRIPT),
            f"http://{LOCALHOST}:{port}{path}",
        ]
    else:
        line = [sys.executable, "-m", "feedbench.generator", *arguments]
    done = subprocess.run(
        on_last_core(line),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + GRACE_S,
        env={**os.environ, "BODIES": str(bodies)},
    )
    if done.returncode:
        raise OperationError(f"the load generator failed: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["errors"]:
        raise OperationError(f"{found['errors']} of {found['requests']} requests failed")
    return Load(found["requests"] / found["seconds"], found["p50_ms"], found["p99_ms"])


async def client(port: int, path: str, bodies: list[bytes], seconds: float) -> dict[str, Any]:
    """What wrk does, more slowly."""
    messages = cycle(
        b"POST %b HTTP/1.1\r\nHost: local\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        for body in bodies
    )
    taken_ms: list[float] = []
    errors = 0
    begun = perf_counter()

    async def connection() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        sent = begun
        while sent < begun + seconds:
            sent = perf_counter()
            writer.write(next(messages))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            errors += b" 200 " not in head.partition(b"\r\n")[0]
            taken_ms.append(1_000 * (perf_counter() - sent))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    taken_ms.sort()
    return {
        "requests": len(taken_ms),
        "seconds": perf_counter() - begun,
        "errors": errors,
        "p50_ms": taken_ms[len(taken_ms) // 2],
        "p99_ms": taken_ms[len(taken_ms) * 99 // 100],
    }


def _main(port: str, path: str, bodies: str, seconds: str) -> None:
    lines = Path(bodies).read_bytes().splitlines()
    found = asyncio.run(client(int(port), path, lines, float(seconds)))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
