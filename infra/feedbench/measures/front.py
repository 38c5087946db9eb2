"""A steady load through the local HTTP front, and what the front itself costs."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp

from feedbench import generator, stats, traffic
from feedbench.bench import Bench
from feedbench.results import Row, row
from feedbench.server import front_server
from feedops.local.front import Front, serving
from feedops.local.pool import EnvironmentPool
from feedops.local.processes import LOCALHOST, free_port, reserve

ITEMS = 50
RATE_PER_S = 100
ENVIRONMENTS = 2
LONGEST_WAIT_S = 5.0
BODIES = 128
WARM_UP_S = 3.0
COST_BLOCKS, COST_CALLS = 10, 30
CANNED = b'{"statusCode": 200, "headers": {"content-type": "application/json"}, "body": "{}"}'


def measure(bench: Bench) -> Iterator[Row]:
    bodies = traffic.requests(bench.bundle, ITEMS, BODIES)
    lines = traffic.write_lines(bench.scratch / "front.jsonl", bodies)
    options: dict[str, Any] = {"environments": ENVIRONMENTS, "longest_wait_s": LONGEST_WAIT_S}
    with front_server(bench.scratch, bench.bundle, **options) as address:
        url = f"{address}/predict"
        generator.drive(url, lines, WARM_UP_S, RATE_PER_S)
        load = generator.drive(url, lines, bench.effort.front_s, RATE_PER_S)
    latency_ms = stats.summary(load["latencies_ms"])
    note = (
        f"{latency_ms['samples']:,} requests in {bench.effort.front_s:g} s, "
        f"{ENVIRONMENTS} environments, from the moment each was due"
    )
    yield row("load", latency_ms["p99"], note)
    yield row("load errors", load["errors"])
    bench.say("what the front costs")
    bench.details["front"] = {
        "latency_ms": latency_ms | {"curve": stats.curve(load["latencies_ms"])},
        "statuses": load["statuses"],
        "cost_ms": asyncio.run(_cost(bench, bodies)),
    }


async def _cost(bench: Bench, bodies: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds a request, one at a time, by turns: an environment alone, the front before it,
    and the front before nothing. The two latter hold the client's own time."""
    events = cycle(json.dumps(traffic.event(body)).encode() for body in bodies)
    supply = cycle(json.dumps(body).encode() for body in bodies)
    function, directory = bench.development, bench.scratch / "cost"

    async def nothing(_event: bytes) -> bytes:
        return CANNED

    async with (
        EnvironmentPool(function, 1, logs=directory, scratch=directory) as pool,
        _client(pool.invoke) as through_front,
        _client(nothing) as front_alone,
    ):
        contests: dict[str, tuple[Callable[[bytes], Awaitable[object]], Iterator[bytes]]] = {
            "environment": (pool.invoke, events),
            "front": (through_front, supply),
            "front alone": (front_alone, supply),
        }
        samples_ms: dict[str, list[float]] = {name: [] for name in contests}
        for number in range(COST_BLOCKS + 1):
            for name, (send, payloads) in contests.items():
                for _ in range(COST_CALLS):
                    start, payload = perf_counter(), next(payloads)
                    await send(payload)
                    if number:
                        samples_ms[name].append(1_000 * (perf_counter() - start))
    return {name: round(median(ms), 3) for name, ms in samples_ms.items()}


@asynccontextmanager
async def _client(
    invoke: Callable[[bytes], Awaitable[bytes]],
) -> AsyncIterator[Callable[[bytes], Awaitable[object]]]:
    """What sends a request through a front before this."""
    port = free_port()
    with reserve(LOCALHOST, port) as bound:
        async with (
            serving(Front(invoke), bound),
            aiohttp.ClientSession(f"http://{LOCALHOST}:{port}", headers=traffic.JSON) as client,
        ):

            async def send(body: bytes) -> None:
                async with client.post("/predict", data=body) as response:
                    await response.read()

            yield send
