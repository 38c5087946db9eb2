"""A steady load through the local HTTP front, and what the front itself costs."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp

from feedbench import stats, traffic
from feedbench.machine import on_last_core
from feedbench.plan import Plan
from feedbench.probe import LINES_QUOTED
from feedbench.results import Measurement, row
from feedops.errors import OperationError
from feedops.local.emulator import Function
from feedops.local.front import Front, serving
from feedops.local.pool import EnvironmentPool
from feedops.local.processes import LOCALHOST, Process, free_port, reserve
from feedops.workspace import FUNCTION

ITEMS = 50
RATE_PER_S = 100
ENVIRONMENTS = 2
LONGEST_WAIT_S = 5.0
P99_BAR_MS = 25.0
BODIES = 128
WARM_UP_S = 3.0
START_TIMEOUT_S = 60.0
COST_BLOCKS, COST_CALLS = 10, 30


def measure(plan: Plan) -> Measurement:
    bodies = traffic.requests(plan.bundle, ITEMS, BODIES)
    lines = traffic.write_lines(plan.scratch / "front.jsonl", bodies)
    found = asyncio.run(_steady(plan, lines))
    plan.say("what the front costs")
    cost = asyncio.run(_cost(plan, [json.dumps(body).encode() for body in bodies]))
    taken = stats.summary(found["latencies_ms"])
    rows = (
        row(
            "load",
            f"{RATE_PER_S} requests/s through the local HTTP front, {ITEMS} items: p99",
            taken["p99"],
            bar=P99_BAR_MS,
            unit="ms",
            portable=False,
            note=f"{taken['samples']:,} requests in {plan.effort.front_s:g} s, "
            f"{ENVIRONMENTS} environments, from the moment each was due",
        ),
        row(
            "load errors",
            "Errors among them",
            float(found["errors"]),
            bar=0,
            unit="",
            portable=False,
        ),
    )
    details = {
        "front": {
            "latency_ms": taken | {"curve": stats.curve(found["latencies_ms"])},
            "statuses": found["statuses"],
            "cost_ms": cost,
        }
    }
    return Measurement(rows, details)


async def open_loop(url: str, bodies: list[bytes], rate_per_s: float, seconds: float) -> Any:  # noqa: ANN401
    """Requests at fixed moments, whatever became of those before: a slow answer delays nobody, and
    a request's time runs from when it was due."""
    latencies_ms: list[float] = []
    statuses: dict[str, int] = {}
    supply = cycle(bodies)
    headers = {"content-type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)

    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as client:

        async def send(due: float) -> None:
            try:
                async with client.post("/predict", data=next(supply)) as response:
                    await response.read()
                    status = str(response.status)
            except aiohttp.ClientError as error:
                status = type(error).__name__
            latencies_ms.append(1_000 * (perf_counter() - due))
            statuses[status] = statuses.get(status, 0) + 1

        begun = perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate_per_s * seconds)):
                due = begun + number / rate_per_s
                await asyncio.sleep(max(0.0, due - perf_counter()))
                group.create_task(send(due))
    errors = sum(count for status, count in statuses.items() if status != "200")
    return {"latencies_ms": latencies_ms, "statuses": statuses, "errors": errors}


@asynccontextmanager
async def front_server(
    plan_scratch: Path, bundle: Path, *, environments: int, longest_wait_s: float
) -> AsyncIterator[int]:
    """The port of a front in a process of its own. Raises StartError."""
    port = free_port()
    process = await Process.start(
        "the local Lambda",
        [
            *(sys.executable, "-m", "feedbench.front_server", bundle, str(port)),
            *(str(environments), str(longest_wait_s), plan_scratch / "front"),
        ],
        plan_scratch / "front.log",
        {"PATH": os.defpath},
    )
    try:
        await process.until_listening(port, START_TIMEOUT_S)
        yield port
    finally:
        await process.stop()


async def _steady(plan: Plan, bodies: Path) -> Any:  # noqa: ANN401
    async with front_server(
        plan.scratch, plan.bundle, environments=ENVIRONMENTS, longest_wait_s=LONGEST_WAIT_S
    ) as port:
        await _generate(port, bodies, WARM_UP_S)
        return await _generate(port, bodies, plan.effort.front_s)


async def _generate(port: int, bodies: Path, seconds: float) -> Any:  # noqa: ANN401
    """In a process of its own, so that nothing here delays it."""
    line: list[str | Path] = [
        *(sys.executable, "-m", "feedbench.front_load"),
        *(str(port), bodies, str(RATE_PER_S), str(seconds)),
    ]
    child = await asyncio.create_subprocess_exec(
        *on_last_core(line), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, problems = await child.communicate()
    if child.returncode:
        last = problems.decode(errors="replace").splitlines()[-LINES_QUOTED:]
        raise OperationError("\n".join(["the load generator failed:", *last]))
    return json.loads(printed)


async def _cost(plan: Plan, bodies: list[bytes]) -> dict[str, float]:
    """Milliseconds a request, one at a time, by turns: an environment alone, the front before it,
    and the front before nothing. The two latter hold the client's own time."""
    canned = b'{"statusCode": 200, "headers": {"content-type": "application/json"}, "body": "{}"}'
    events = cycle(json.dumps(traffic.event(json.loads(body))).encode() for body in bodies)
    supply = cycle(bodies)
    pool = EnvironmentPool(
        Function(FUNCTION, plan.variables),
        1,
        logs=plan.scratch / "cost",
        scratch=plan.scratch / "cost",
    )

    async def nothing(_event: bytes) -> bytes:
        return canned

    taken: dict[str, list[float]] = {"environment": [], "front": [], "front alone": []}
    ports = free_port(), free_port()
    with reserve(LOCALHOST, ports[0]) as first, reserve(LOCALHOST, ports[1]) as second:
        async with (
            pool,
            serving(Front(pool.invoke), first),
            serving(Front(nothing), second),
            aiohttp.ClientSession(headers={"content-type": "application/json"}) as client,
        ):

            async def through(port: int) -> None:
                url = f"http://{LOCALHOST}:{port}/predict"
                async with client.post(url, data=next(supply)) as response:
                    await response.read()

            contests: dict[str, Callable[[], Awaitable[object]]] = {
                "environment": lambda: pool.invoke(next(events)),
                "front": lambda: through(ports[0]),
                "front alone": lambda: through(ports[1]),
            }
            for number in range(COST_BLOCKS + 1):
                for name, send in contests.items():
                    for _ in range(COST_CALLS):
                        begun = perf_counter()
                        await send()
                        if number:
                            taken[name].append(1_000 * (perf_counter() - begun))
    return {name: round(median(each), 3) for name, each in taken.items()}


def _main(port: str, bodies: str, rate_per_s: str, seconds: str) -> None:
    lines = Path(bodies).read_bytes().splitlines()
    url = f"http://{LOCALHOST}:{port}"
    found = asyncio.run(open_loop(url, lines, float(rate_per_s), float(seconds)))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
