"""Work in threads that a request waits for: until a time, so many at once, and none for a while
after failures in a row."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Semaphore, Thread
from time import perf_counter

MAX_QUEUE_S = 0.1  # that work waits for a thread
MAX_FAILURES = 3  # in a row, of any kind
PAUSE_S = 5.0  # after them; then one try
TIMED_OUT = "did not finish in the request's time"

Work = Future[str | None]  # the reason of a failure


async def wait_for(pending: Sequence[Work], deadline_s: float, *, is_alone: bool) -> None:
    """Until they are done, or time is up; what has no thread by then is cancelled. The event loop
    goes on meanwhile; a request that is alone blocks, and so needs no event loop."""
    if is_alone:
        wait(pending, min(_left_s(deadline_s), MAX_QUEUE_S))
        if _has_begun(pending):
            wait(pending, _left_s(deadline_s))
        return
    outcomes = [asyncio.wrap_future(work) for work in pending]
    try:
        await asyncio.wait(outcomes, timeout=min(_left_s(deadline_s), MAX_QUEUE_S))
        if _has_begun(pending):
            await asyncio.wait(outcomes, timeout=_left_s(deadline_s))
    finally:
        for outcome in outcomes:  # else late work reports to an event loop that may be closed
            outcome.cancel()


def _left_s(deadline_s: float) -> float:
    return max(deadline_s - perf_counter(), 0.0)


def _has_begun(pending: Sequence[Work]) -> bool:
    """Whether any is under way. Cancels what no thread has begun."""
    for work in pending:
        work.cancel()
    return not all(work.done() for work in pending)


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
        self._queue: SimpleQueue[tuple[Work, Callable[[], str | None]]] = SimpleQueue()

    def submit(self, work: Callable[[], str | None]) -> Work:
        """`work` must not raise. Raises OSError where it needs a thread and none can be started."""
        future = Work()
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
