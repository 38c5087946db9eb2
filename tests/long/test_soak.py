"""A steady load near saturation: every response is good, no slow tail, constant memory; and many
concurrent environments. The short version makes the same requests and asserts no time."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from time import perf_counter

import aiohttp
import numpy as np
import pytest

from feedbench import traffic
from feedbench.generator import open_loop
from feedops.local.emulator import Function
from feedops.local.pool import EnvironmentPool
from feedops.workspace import FUNCTION
from long.conftest import Table
from long.served import on_the_local_lambda, under_uvicorn

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))  # 0: the short version
ENVIRONMENTS = 50 if SECONDS else 3
SATURATING_S = 10.0 if SECONDS else 0.5
CONNECTIONS = 8
ITEMS, BODIES = 50, 128
SHARE = 0.8 if SECONDS else 0.2  # of saturation, which other tests on this machine lower
TAIL = 3.0  # p99 in units of p50
MOST_GROWTH = 0.05
PATIENT = {"REQUEST_TIMEOUT_MS": "60000"}  # the machine may be busy with other tests
HEADINGS = ("load on", "saturation/s", "rate/s", "seconds", "requests", "200", "p50 ms", "p99 ms",
            "MB before", "MB after")  # fmt: skip


@pytest.mark.parametrize("serve", [under_uvicorn, on_the_local_lambda])
def test_near_saturation_every_response_is_good_and_memory_is_constant(
    serve: Callable[..., AbstractContextManager[str]],
    demo_bundle: Path,
    tmp_path: Path,
    table: Table,
) -> None:
    bodies = [json.dumps(b).encode() for b in traffic.requests(demo_bundle, ITEMS, BODIES)]
    with serve(demo_bundle, tmp_path, **({} if SECONDS else PATIENT)) as url:
        asyncio.run(closed_loop(url, bodies, SATURATING_S))  # warm
        saturation = asyncio.run(closed_loop(url, bodies, SATURATING_S))
        before_mb = children_mb()
        rate, seconds = SHARE * saturation, SECONDS or 1.0
        result = asyncio.run(open_loop(f"{url}/predict", bodies, rate, seconds))
        after_mb = children_mb()
    p50, p99 = np.percentile(result["latencies_ms"], [50, 99])
    statuses, requests = Counter(result["statuses"]), len(result["latencies_ms"])
    table(
        HEADINGS,
        (serve.__name__.replace("_", " "), f"{saturation:.0f}", f"{rate:.0f}", f"{seconds:g}",
         f"{requests:,}", f"{statuses['200'] / requests:.2%}", f"{p50:.2f}", f"{p99:.2f}",
         f"{before_mb:.0f}", f"{after_mb:.0f}"),
    )  # fmt: skip
    assert statuses == {"200": requests}
    if SECONDS:
        assert p99 <= TAIL * p50
        assert after_mb <= (1 + MOST_GROWTH) * before_mb


async def closed_loop(url: str, bodies: list[bytes], seconds: float) -> float:
    """Good responses per second; each connection sends again as soon as it has a response."""
    good, supply, begun = 0, cycle(bodies), perf_counter()
    headers = {"content-type": "application/json"}

    async def connection(client: aiohttp.ClientSession) -> None:
        nonlocal good
        while perf_counter() < begun + seconds:
            async with client.post("/predict", data=next(supply)) as response:
                await response.read()
                good += response.status == 200

    async with aiohttp.ClientSession(url, headers=headers) as client:
        await asyncio.gather(*(connection(client) for _ in range(CONNECTIONS)))
    return good / (perf_counter() - begun)


def test_many_concurrent_environments_serve_one_request_each(
    demo_bundle: Path, tmp_path: Path, table: Table
) -> None:
    function = Function(FUNCTION, {"MODEL_URI": str(demo_bundle), **PATIENT}, timeout_s=300)
    event = json.dumps(traffic.event(traffic.requests(demo_bundle, ITEMS, 1)[0])).encode()

    async def work() -> tuple[list[int], float, float]:
        async with EnvironmentPool(
            function, ENVIRONMENTS, logs=tmp_path / "logs", scratch=tmp_path / "run",
            longest_wait_s=300.0,
        ) as pool:  # fmt: skip
            begun = perf_counter()
            responses = await asyncio.gather(*(pool.invoke(event) for _ in range(ENVIRONMENTS)))
            took_s = perf_counter() - begun
            return (
                [json.loads(response)["statusCode"] for response in responses],
                took_s,
                children_mb(),
            )

    statuses, took_s, used_mb = asyncio.run(work())
    table(
        ("environments", "served", "took s", "MB together"),
        (ENVIRONMENTS, statuses.count(200), f"{took_s:.1f}", f"{used_mb:.0f}"),
    )
    assert statuses == [200] * ENVIRONMENTS


def children_mb() -> float:
    """Resident memory of all descendants of this process."""
    pages, children = 0, {os.getpid()}
    for pid, parent, resident in sorted(processes()):
        if parent in children:
            children.add(pid)
            pages += resident
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processes() -> Iterator[tuple[int, int, int]]:
    """The id of every process, its parent's and its resident pages."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            resident = int((directory / "statm").read_text().split()[1])
        except (OSError, IndexError):  # it has just exited
            continue
        yield int(directory.name), parent, resident
