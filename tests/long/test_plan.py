"""What `feedrank plan` expects of environments, compared with those of the local pool under load.

The short version makes the same requests and compares nothing, since it would compare times.
"""

import asyncio
import gc
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from math import log
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pytest

from feedbench import traffic
from feedops.errors import ThrottledError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.local.emulator_log import reports
from feedops.local.pool import EnvironmentPool
from feedops.plan import environments
from feedops.plan.queues import Queue, erlang_b
from feedops.workspace import FUNCTION
from long.conftest import Table

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))  # 0: the short version
LOAD_S = min(SECONDS, 60.0) or 0.5
SAMPLES = 400 if SECONDS else 5
WITHIN = 0.15
PATIENT_S = 60.0
ITEMS, BODIES = 50, 64
SIGMA = 0.4  # of the times that a stand-in sleeps, which keeps no processor busy
STANDIN = Path(__file__).parents[1] / "runtime" / "standin"
HEADINGS = ("local pool", "requests/s", "measured", "planned", "apart")


class TimedPool(EnvironmentPool):
    """Notes for how long each request takes an environment: its service time, under whatever load
    the machine has. A function's log has such times, too."""

    service_s: list[float]

    @asynccontextmanager
    async def _idle_environment(self) -> AsyncIterator[ExecutionEnvironment]:
        async with super()._idle_environment() as environment:
            start_s = perf_counter()
            yield environment
            self.service_s.append(perf_counter() - start_s)


class Load(NamedTuple):
    responses_s: list[float]
    refused: int

    @property
    def mean_s(self) -> float:
        return float(np.mean(self.responses_s))

    @property
    def p99_s(self) -> float:
        return float(np.percentile(self.responses_s, 99))


async def poisson(
    pool: EnvironmentPool, events: list[bytes], rate_per_s: float, seed: int = 0
) -> Load:
    """Requests at random moments, each from when it was due."""
    source, supply = random.Random(seed), cycle(events)  # noqa: S311 no secret
    responses_s: list[float] = []
    refused = 0

    async def send(event: bytes, due_s: float) -> None:
        nonlocal refused
        try:
            await pool.invoke(event)
            responses_s.append(perf_counter() - due_s)
        except ThrottledError:
            refused += 1

    due_s = perf_counter()
    end_s = due_s + LOAD_S
    async with asyncio.TaskGroup() as group:
        while (due_s := due_s + source.expovariate(rate_per_s)) < end_s:
            # A timer would gather what is due within its millisecond.
            while perf_counter() < due_s:  # noqa: ASYNC110
                await asyncio.sleep(0)
            group.create_task(send(next(supply), due_s))
    return Load(responses_s, refused)


async def alone(pool: EnvironmentPool, events: list[bytes]) -> np.ndarray:
    """Service times: one request at a time, at the same pace of the loop."""
    samples_s = []
    for event in events:
        start_s = perf_counter()
        invocation = asyncio.ensure_future(pool.invoke(event))
        while not invocation.done():  # noqa: ASYNC110 as the load does
            await asyncio.sleep(0)
        samples_s.append(perf_counter() - start_s)
    return np.array(samples_s)


def compare(table: Table, what: str, rate_per_s: float, measured: float, planned: float) -> None:
    apart = measured / planned - 1.0
    table(
        HEADINGS, (what, f"{rate_per_s:.0f}", f"{measured:.3g}", f"{planned:.3g}", f"{apart:.1%}")
    )
    if SECONDS:
        assert measured == pytest.approx(planned, rel=WITHIN), what


def sleeps(mean_s: float) -> list[bytes]:
    """Requests that a stand-in takes a lognormal time for."""
    source = random.Random(1)  # noqa: S311 no secret
    mu = log(mean_s) - SIGMA**2 / 2
    times = [source.lognormvariate(mu, SIGMA) for _ in range(1_000)]
    return [
        json.dumps({"queryStringParameters": {"do": "sleep", "seconds": str(seconds)}}).encode()
        for seconds in times
    ]


@pytest.fixture
def no_collections() -> Iterator[None]:
    """One would stop the load, which stands in for callers, for as long as fifty requests take."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("busy", [0.3, 0.6])
def test_the_functions_response_times_are_those_of_a_queue_before_it(
    busy: float, demo_bundle: Path, tmp_path: Path, table: Table
) -> None:
    bodies = traffic.requests(demo_bundle, ITEMS, BODIES)
    events = [json.dumps(traffic.event(body)).encode() for body in bodies]
    function = Function(FUNCTION, {"MODEL_URI": str(demo_bundle)})
    samples = [event for event, _ in zip(cycle(events), range(SAMPLES), strict=False)]

    async def work() -> tuple[np.ndarray, float, Load]:
        places = {"logs": tmp_path / "logs", "scratch": tmp_path / "run"}
        async with TimedPool(function, 1, longest_wait_s=PATIENT_S, **places) as pool:
            pool.service_s = []
            await alone(pool, samples)  # warm
            rate_per_s = busy / float((await alone(pool, samples)).mean())
            pool.service_s = []
            load = await poisson(pool, events, rate_per_s)
        return np.array(pool.service_s), rate_per_s, load

    service_s, rate_per_s, load = asyncio.run(work())
    mean_s = float(service_s.mean())
    queue = Queue(1, rate_per_s, mean_s, float(service_s.var()) / mean_s**2)
    assert load.refused == 0
    name = f"the function, {busy:.0%} busy, ms"
    compare(
        table, f"{name}, mean", rate_per_s, 1e3 * load.mean_s, 1e3 * (mean_s + queue.mean_wait_s)
    )
    p99_s = queue.response_quantile_s(0.99, service_s)
    compare(table, f"{name}, p99", rate_per_s, 1e3 * load.p99_s, 1e3 * p99_s)


def test_as_many_requests_are_refused_as_find_all_environments_busy(
    tmp_path: Path, table: Table
) -> None:
    events, load_erlangs = sleeps(0.06), 3.0
    count = 4 if SECONDS else 2

    async def work() -> tuple[float, Load]:
        places = {"logs": tmp_path / "logs", "scratch": tmp_path / "run"}
        async with EnvironmentPool(Function(STANDIN), count, longest_wait_s=0.0, **places) as pool:
            await pool.warm_up(b"{}")
            service_s = await alone(pool, events[: SAMPLES // 4 or 1])
            rate_per_s = load_erlangs / float(service_s.mean())
            return rate_per_s, await poisson(pool, events, rate_per_s)

    rate_per_s, load = asyncio.run(work())
    refused = load.refused / (load.refused + len(load.responses_s))
    compare(table, "share refused", rate_per_s, refused, erlang_b(count, load_erlangs))


def test_as_many_environments_start_as_the_plan_expects(tmp_path: Path, table: Table) -> None:
    sleep_s, load_erlangs = 0.3, 4.0
    events, rate_per_s = sleeps(sleep_s), load_erlangs / sleep_s
    most, runs = (25, 4) if SECONDS else (2, 1)
    started: list[int] = []
    init_ms: list[float] = []
    for run in range(runs):
        logs = tmp_path / f"logs-{run}"

        async def work(logs: Path = logs, run: int = run) -> None:
            scratch = tmp_path / f"run-{run}"
            function = Function(STANDIN)
            async with EnvironmentPool(function, most, logs=logs, scratch=scratch) as pool:
                await poisson(pool, events, rate_per_s, seed=run)

        asyncio.run(work())
        inits = [
            report.init_ms
            for log_ in logs.iterdir()
            for report in reports(log_.read_text().splitlines())
            if report.init_ms is not None
        ]
        started.append(len(inits))
        init_ms += inits
    assert not SECONDS or max(started) < most  # else it was the pool that ended
    rates = np.array([1e-9, *np.full(max(1, round(LOAD_S)), rate_per_s)])
    service_s, init_s = sleep_s + 0.002, float(np.mean(init_ms)) / 1e3
    expected = environments.simulate(
        rates, 1.0, environments.Function(service_s, init_s, 3_600.0, most, 1_000)
    )
    compare(
        table,
        "environments started",
        rate_per_s,
        float(np.mean(started)),
        float(expected.cold_starts.sum()),
    )
