"""A sink with limits on time, on writes at once and on failures in a row.

So a sink that hangs costs a request the time that it has left, and one that is down costs it none.
"""

import time
from collections.abc import Callable, Sequence
from time import perf_counter

from feedrank.decisions.sinks import DecisionRecord, DecisionSink
from feedrank.errors import type_and_place
from feedrank.telemetry.logging import logger
from feedrank.threads import (
    MAX_FAILURES,
    PAUSE_S,
    TIMED_OUT,
    Breaker,
    DaemonThreads,
    Work,
    wait_for,
)

MAX_WRITE_S = 1.3  # that a request waits for a write; more than Firehose's client takes
TOO_LATE = "no time is left"


class BoundedSink:
    """Use it from one thread: the event loop's, or the request's on Lambda."""

    def __init__(self, sink: DecisionSink, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = type(sink).__name__
        self._sink = sink
        self._clock = clock
        self._begin_anew()

    def restart(self) -> None:
        """After a SnapStart restore: with connections, threads and a clock of this container."""
        self._begin_anew()
        try:
            self._sink.connect()
        except Exception as error:
            logger.error("decision sink can't connect", sink=self.name, reason=_reason(error))

    def _begin_anew(self) -> None:
        self._breaker = Breaker(self._clock)
        self._threads = DaemonThreads(self._sink.max_writes, self.name)
        self._late: list[Work] = []  # under way, though their requests are over

    def begin(self, record: DecisionRecord) -> Work:
        """Raises OSError where no write is begun."""
        if record.deadline_s - perf_counter() < self._sink.min_write_s:
            raise OSError(TOO_LATE)
        if not self._breaker.admits():
            raise OSError(f"failed {MAX_FAILURES} times in a row: skipped for {PAUSE_S:g} s")
        return self._threads.submit(lambda: self._write(record))

    def _write(self, record: DecisionRecord) -> str | None:
        """The reason of a refusal."""
        try:
            self._sink.write(record)
        except BaseException as error:
            return _reason(error)
        return None

    def end(self, write: Work) -> None:
        """Raises OSError where the sink has not taken the record by now."""
        self._late = [late for late in self._late if not late.done()]
        if write.cancelled():
            if len(self._late) >= self._sink.max_writes:  # they hang; else the sink is only busy
                self._breaker.count(failed=True)
            raise OSError(f"{self._sink.max_writes} writes are under way")
        if is_late := not write.done():
            self._late.append(write)
        reason = TIMED_OUT if is_late else write.result()
        self._breaker.count(failed=reason is not None)
        if reason is not None:
            raise OSError(reason)


def _reason(error: BaseException) -> str:
    """The text of an error other than OSError may repeat the record."""
    return str(error) if isinstance(error, OSError) else type_and_place(error)


async def wait_for_writes(writes: Sequence[Work], deadline_s: float, *, is_alone: bool) -> None:
    await wait_for(writes, min(deadline_s, perf_counter() + MAX_WRITE_S), is_alone=is_alone)
