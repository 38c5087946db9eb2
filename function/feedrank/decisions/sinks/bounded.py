"""A sink with limits on time, on writes at once and on failures in a row.

So a sink that hangs costs a request the time that it has left, and one that is down costs it none.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Semaphore, Thread
from time import perf_counter

from feedrank.decisions.sinks import DecisionRecord, DecisionSink
from feedrank.errors import type_and_place
from feedrank.telemetry.logging import logger

MAX_WRITE_S = 1.2  # that a request waits for a write; more than Firehose's client takes
MAX_QUEUE_S = 0.1  # that a write waits for a thread
MAX_FAILURES = 3  # in a row, of any kind
PAUSE_S = 5.0  # after them; then one write tries the sink
TOO_LATE = "no time is left"
TIMED_OUT = "did not finish in the request's time"

Write = Future[str | None]  # the reason of a refusal


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
        self._late: list[Write] = []  # under way, though their requests are over

    def begin(self, record: DecisionRecord) -> Write:
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

    def end(self, write: Write) -> None:
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


async def wait_for(writes: Sequence[Write], deadline_s: float, *, is_alone: bool) -> None:
    """Until they are done, or time is up; what has no thread by then is cancelled. The event loop
    goes on meanwhile; a request that is alone blocks, and so needs no event loop."""
    if is_alone:
        wait(writes, _left_s(deadline_s, MAX_QUEUE_S))
        if _has_pending(writes):
            wait(writes, _left_s(deadline_s, MAX_WRITE_S))
        return
    outcomes = [asyncio.wrap_future(write) for write in writes]
    try:
        await asyncio.wait(outcomes, timeout=_left_s(deadline_s, MAX_QUEUE_S))
        if _has_pending(writes):
            await asyncio.wait(outcomes, timeout=_left_s(deadline_s, MAX_WRITE_S))
    finally:
        for outcome in outcomes:  # else a late write reports to an event loop that may be closed
            outcome.cancel()


def _left_s(deadline_s: float, longest_s: float) -> float:
    return max(min(deadline_s - perf_counter(), longest_s), 0.0)


def _has_pending(writes: Sequence[Write]) -> bool:
    """Cancels the writes that no thread has begun."""
    for write in writes:
        write.cancel()
    return not all(write.done() for write in writes)


class Breaker:
    """Admits nothing for a while after some failures in a row; then one try a pause, until one
    succeeds. For one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._resume_at_s = 0.0

    def admits(self) -> bool:
        if self._failures < MAX_FAILURES:
            return True
        now_s = self._clock()
        if now_s < self._resume_at_s:
            return False
        self._resume_at_s = now_s + PAUSE_S  # by then this try has failed, or ended the pauses
        return True

    def count(self, *, failed: bool) -> None:
        self._failures = self._failures + 1 if failed else 0
        if self._failures == MAX_FAILURES:
            self._resume_at_s = self._clock() + PAUSE_S


class DaemonThreads:
    """An executor whose threads the process doesn't wait for when it ends."""

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._started = 0
        self._idle = Semaphore(0)
        self._queue: SimpleQueue[tuple[Write, Callable[[], str | None]]] = SimpleQueue()

    def submit(self, work: Callable[[], str | None]) -> Write:
        """`work` must not raise. Raises OSError where it needs a thread and none can be started."""
        future = Write()
        self._queue.put((future, work))
        if not self._idle.acquire(blocking=False) and self._started < self._max_threads:
            try:
                Thread(target=self._serve, name=self._name, daemon=True).start()
            except RuntimeError as error:
                if future.cancel():  # else a thread that became free has it
                    raise OSError(str(error)) from error
            else:
                self._started += 1
        return future

    def _serve(self) -> None:
        while True:
            future, work = self._queue.get()
            if future.set_running_or_notify_cancel():
                future.set_result(work())
            self._idle.release()
