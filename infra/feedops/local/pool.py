"""Several execution environments behind one `invoke`, each with one invocation at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from feedops.errors import FunctionError, OperationError, StartError, ThrottledError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.local.emulator_log import printed_by_function
from feedops.local.processes import tail

LONGEST_WAIT_S = 5.0  # for an idle environment
FIRST_PAUSE_S = 1.0  # before an environment that doesn't start is tried again
LONGEST_PAUSE_S = 30.0

logger = logging.getLogger(__name__)


class EnvironmentPool:
    """Use it with `async with`. An environment that dies is replaced.

    Last in, first out, as in Lambda: at a low load one environment gets all requests, and its
    caches stay warm.
    """

    def __init__(
        self,
        function: Function,
        concurrency: int,
        *,
        logs: Path,
        scratch: Path,
        longest_wait_s: float = LONGEST_WAIT_S,
    ) -> None:
        self._function = function
        self._logs = logs
        self._scratch = scratch
        self._longest_wait_s = longest_wait_s
        self._environments: dict[int, ExecutionEnvironment] = {}
        self._idle: asyncio.LifoQueue[ExecutionEnvironment] = asyncio.LifoQueue()
        self._keepers: list[asyncio.Task[None]] = []
        self._numbers = range(1, concurrency + 1)

    async def __aenter__(self) -> Self:
        """Raises EmulatorMissingError or StartError."""
        try:
            for number in self._numbers:
                self._log(number).unlink(missing_ok=True)
                await self._start(number)
        except BaseException:
            await self._stop()
            raise
        self._keepers = [asyncio.create_task(self._keep(number)) for number in self._numbers]
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def invoke(self, event: bytes) -> bytes:
        """The function's response, JSON.

        Raises ThrottledError if every environment stays busy, or FunctionError.
        """
        async with self._idle_environment() as environment:
            return await environment.invoke(event)

    async def warm_up(self, event: bytes) -> None:
        """Send the event to every environment, so that each runs its init.

        Raises StartError, with the end of the log, if one fails.
        """
        await asyncio.gather(*(self._warm_up(event) for _ in self._numbers))

    async def _warm_up(self, event: bytes) -> None:
        async with self._idle_environment() as environment:
            try:
                await environment.invoke(event)
            except FunctionError as error:
                end_of_log = tail(environment.log, printed_by_function)
                raise StartError(f"the function doesn't start: {error}; {end_of_log}") from error

    @asynccontextmanager
    async def _idle_environment(self) -> AsyncIterator[ExecutionEnvironment]:
        environment = await self._take()
        try:
            yield environment
        finally:
            if environment.is_running:
                self._idle.put_nowait(environment)

    async def _take(self) -> ExecutionEnvironment:
        try:
            async with asyncio.timeout(self._longest_wait_s):
                while not (environment := await self._idle.get()).is_running:
                    pass  # it died while idle; its keeper starts another
        except TimeoutError as error:
            raise ThrottledError(
                f"all {len(self._numbers)} environments were busy for {self._longest_wait_s:g} s"
            ) from error
        return environment

    async def _start(self, number: int) -> None:
        environment = await ExecutionEnvironment.start(
            self._function,
            log=self._log(number),
            temporary=self._scratch / f"environment-{number}",
        )
        self._environments[number] = environment
        self._idle.put_nowait(environment)

    async def _keep(self, number: int) -> None:
        """Replace the environment whenever it dies. The new one's first event runs its init."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._environments[number].wait()
            logger.warning("environment %d has ended; starting another", number)
            try:
                await self._start(number)
                pause_s = FIRST_PAUSE_S
            except (OperationError, OSError) as error:
                logger.warning("environment %d does not start: %s", number, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in self._environments.values()))

    def _log(self, number: int) -> Path:
        return self._logs / f"environment-{number}.log"
