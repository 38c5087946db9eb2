"""Several execution environments behind one function."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedops.errors import EnvironmentLostError, FunctionError, StartError, ThrottledError
from feedops.local.emulator import Function
from feedops.local.pool import EnvironmentPool
from feedops.local.tether import members_of

MakeEvent = Callable[..., bytes]
OpenPool = Callable[..., EnvironmentPool]


@pytest.fixture
def open_pool(standin: Function, tmp_path: Path) -> OpenPool:
    def make(
        concurrency: int, longest_wait_s: float = 20.0, function: Function = standin
    ) -> EnvironmentPool:
        return EnvironmentPool(
            function,
            concurrency,
            logs=tmp_path / "logs",
            scratch=tmp_path / "run",
            longest_wait_s=longest_wait_s,
        )

    return make


async def invoke(pool: EnvironmentPool, event: bytes) -> Any:
    return json.loads(await pool.invoke(event))


def sessions(pool: EnvironmentPool) -> list[int]:
    return [each._process.session for each in pool._environments.values()]


def test_there_are_as_many_concurrent_invocations_as_environments(
    runner: asyncio.Runner, open_pool: OpenPool, event: MakeEvent
) -> None:
    async def work() -> list[int]:
        async with open_pool(2) as pool:
            pids = [invoke(pool, event("process", seconds=0)) for _ in range(6)]
            return [response["pid"] for response in await asyncio.gather(*pids)]

    assert len(set(runner.run(work()))) == 2


def test_the_most_recently_used_environment_comes_first(
    runner: asyncio.Runner, open_pool: OpenPool, event: MakeEvent
) -> None:
    async def work() -> set[int]:
        async with open_pool(2) as pool:
            await pool.warm_up(event("answer"))
            return {(await invoke(pool, event("process")))["pid"] for _ in range(4)}

    assert len(runner.run(work())) == 1


def test_warming_up_runs_every_environments_init(
    runner: asyncio.Runner, open_pool: OpenPool, event: MakeEvent, tmp_path: Path
) -> None:
    async def work() -> None:
        async with open_pool(2) as pool:
            await pool.warm_up(event("answer"))

    runner.run(work())
    logs = sorted(tmp_path.glob("logs/*.log"))
    assert [log.name for log in logs] == ["environment-1.log", "environment-2.log"]
    assert all(log.read_text().count("stand-in initialised") == 1 for log in logs)


def test_an_invocation_is_throttled_while_all_environments_are_busy(
    runner: asyncio.Runner, open_pool: OpenPool, event: MakeEvent
) -> None:
    async def work() -> None:
        async with open_pool(1, longest_wait_s=0.05) as pool:
            await pool.warm_up(event("answer"))
            hanging = asyncio.create_task(pool.invoke(event("hang")))
            await asyncio.sleep(0)  # it takes the environment
            with pytest.raises(ThrottledError, match="all 1 environments were busy"):
                await pool.invoke(event("answer"))
            hanging.cancel()

    runner.run(work())


@pytest.mark.parametrize("failure", ["raise", "exit"])
def test_an_environment_survives_a_function_error(
    runner: asyncio.Runner, open_pool: OpenPool, event: MakeEvent, failure: str
) -> None:
    async def work() -> Any:
        async with open_pool(1) as pool:
            with pytest.raises(FunctionError):
                await pool.invoke(event(failure))
            return await invoke(pool, event("answer", 1))

    assert runner.run(work()) == 1


def test_an_environment_that_dies_while_busy_is_replaced(
    runner: asyncio.Runner,
    open_pool: OpenPool,
    event: MakeEvent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> Any:
        async with open_pool(1) as pool:
            with pytest.raises(EnvironmentLostError):
                await pool.invoke(event("kill_emulator"))
            return await invoke(pool, event("answer", 1))

    with caplog.at_level(logging.WARNING):
        assert runner.run(work()) == 1
    assert caplog.messages == ["environment 1 has ended; starting another"]


def test_an_environment_that_dies_while_idle_is_replaced_without_an_error(
    runner: asyncio.Runner, open_pool: OpenPool, event: MakeEvent
) -> None:
    async def work() -> tuple[int, int]:
        async with open_pool(1) as pool:
            first = (await invoke(pool, event("process")))["emulator"]
            dying = pool._environments[1]
            os.kill(first, signal.SIGKILL)
            await dying.wait()
            return first, (await invoke(pool, event("process")))["emulator"]

    first, second = runner.run(work())
    assert first != second


def test_an_init_that_fails_is_a_start_error_with_the_end_of_the_log(
    runner: asyncio.Runner, open_pool: OpenPool, standin: Function, event: MakeEvent
) -> None:
    broken = replace(standin, variables={"STANDIN_INIT": "fail"})

    async def work() -> None:
        async with open_pool(2, function=broken) as pool:
            await pool.warm_up(event("answer"))

    with pytest.raises(StartError) as caught:
        runner.run(work())
    assert "RuntimeError: the stand-in was told to fail at init" in str(caught.value)
    assert "the end of " in str(caught.value)


def test_closing_the_pool_ends_every_process(
    runner: asyncio.Runner, open_pool: OpenPool, event: MakeEvent
) -> None:
    async def work() -> list[int]:
        async with open_pool(2) as pool:
            await pool.warm_up(event("answer"))
            hanging = asyncio.create_task(pool.invoke(event("hang")))
            await asyncio.sleep(0)  # it takes an environment
            started = sessions(pool)
        with pytest.raises(EnvironmentLostError):
            await hanging
        return started

    assert [members_of(session) for session in runner.run(work())] == [[], []]
