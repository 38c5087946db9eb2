"""A Firehose stream that takes decision records, bounded in time, calls at once and failures.

Whatever it does not take, for any reason, is for standard output: nothing here waits for a stream
that is slow, or tries one again and again that is down.
"""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Semaphore, Thread
from time import perf_counter

from feedrank.errors import SettingsError

CONNECT_TIMEOUT_S = 0.3
READ_TIMEOUT_S = 0.7  # one try: the request waits for it
LEAST_S = 0.02  # a call that has less is not begun: one takes about 0.01
LONGEST_S = 1.2  # past what the limits above allow together
CALLS = 16  # at once: some 1,600 records a second, of the 2,000 that a stream takes by default
FREE_CALL_S = 0.1  # that a record waits for a call to end while all are under way
FAILURES = 3  # in a row, of whatever kind: refused, throttled, no answer in time
PAUSE_S = 5.0  # after them; then one record tries whether it is back


def connected(name: str) -> "FirehoseStream":
    """Raises SettingsError where the AWS_* variables make no client."""
    try:
        return FirehoseStream(name)
    except Exception as error:  # botocore's, or Python's own
        reason = f"DECISION_STREAM: the AWS_* variables make no client: {error}"
        raise SettingsError(reason) from error


class FirehoseStream:
    """A delivery stream that takes each record as it is made.

    A container is frozen as soon as it has answered, so no record waits for others: one call a
    request, within the request and within its time. A record that Firehose took, though its answer
    came too late, is spilled too; `request_id` tells the two to be one.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self.connect()

    def connect(self) -> None:
        """Anew: with connections, credentials and a clock of this container's own."""
        import boto3
        from botocore.config import Config

        self._firehose = boto3.Session().client(
            "firehose",
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=CALLS,
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
        )
        self._breaker = Breaker(self._clock)
        # The client's own limits hold for each wait, and for all calls alike.
        self._calls = DaemonThreads(CALLS, "firehose")

    def write(self, line: bytes, deadline_s: float = math.inf) -> None:
        """Until `deadline_s` at most (`time.perf_counter()` seconds). Raises OSError where the
        stream doesn't take it."""
        put = self._begin(line, deadline_s)
        wait([put], _left_s(deadline_s, FREE_CALL_S))
        if not put.cancel():
            wait([put], _left_s(deadline_s, LONGEST_S))
        self._end(put)

    async def send(self, line: bytes, deadline_s: float) -> None:
        """The same, while the event loop goes on."""
        put = self._begin(line, deadline_s)
        answer = asyncio.wrap_future(put)
        try:
            await asyncio.wait([answer], timeout=_left_s(deadline_s, FREE_CALL_S))
            if not put.cancel():
                await asyncio.wait([answer], timeout=_left_s(deadline_s, LONGEST_S))
            self._end(put)
        finally:
            answer.cancel()

    def _begin(self, line: bytes, deadline_s: float) -> Future[str]:
        if deadline_s - perf_counter() < LEAST_S:
            raise OSError(f"no time is left to send it to {self._name}")
        if not self._breaker.admits():
            raise OSError(f"{self._name} failed {FAILURES} times, and is left alone for a while")
        return self._calls.submit(lambda: self._put(line))

    def _put(self, line: bytes) -> str:
        """Why it was not taken; nothing where it was."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._firehose.put_record(DeliveryStreamName=self._name, Record={"Data": line})
        except ClientError as error:  # throttled, too large, gone
            return f"answers {error.response['Error']['Code']}"
        except BotoCoreError as error:
            return f"can't be reached: {error}"
        except Exception as error:  # noqa: BLE001 botocore's of credentials are Python's own
            return f"fails with {type(error).__name__}"
        return ""

    def _end(self, put: Future[str]) -> None:
        if put.cancelled():
            raise OSError(f"{CALLS} calls to {self._name} are under way")
        failure = put.result() if put.done() else "did not answer in the request's time"
        self._breaker.count(failed=bool(failure))
        if failure:
            raise OSError(f"{self._name} {failure}")


def _left_s(deadline_s: float, longest_s: float) -> float:
    return max(min(deadline_s - perf_counter(), longest_s), 0.0)


class Breaker:
    """Admits nothing for a while after some failures in a row; then one try a pause, until one
    succeeds. For one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._resume_at_s = 0.0

    def admits(self) -> bool:
        if self._failures < FAILURES:
            return True
        now_s = self._clock()
        if now_s < self._resume_at_s:
            return False
        self._resume_at_s = now_s + PAUSE_S  # by then this try has failed, or ended the pauses
        return True

    def count(self, *, failed: bool) -> None:
        self._failures = self._failures + 1 if failed else 0
        if self._failures == FAILURES:
            self._resume_at_s = self._clock() + PAUSE_S


class DaemonThreads:
    """An executor's part that is needed here, but the process ends without waiting for it."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._started = 0
        self._idle = Semaphore(0)
        self._queue: SimpleQueue[tuple[Future[str], Callable[[], str]]] = SimpleQueue()

    def submit(self, work: Callable[[], str]) -> Future[str]:
        future: Future[str] = Future()
        self._queue.put((future, work))
        if not self._idle.acquire(blocking=False) and self._started < self._most:
            try:
                Thread(target=self._serve, name=self._name, daemon=True).start()
            except RuntimeError as error:  # none can be started: whoever serves next leaves it out
                if future.cancel():
                    raise OSError(f"{self._name}: {error}") from error
            else:
                self._started += 1
        return future

    def _serve(self) -> None:
        while True:
            future, work = self._queue.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 it is the caller's
                    future.set_exception(error)
            self._idle.release()
