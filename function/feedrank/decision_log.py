"""The decision record: one JSON line per request, saying what was asked and what was answered.

It goes to standard output, from where CloudWatch Logs has it, or to a Firehose stream; and to any
sink beside that. A sink that refuses a record costs nothing but itself: the line on standard output
is the spill, and the refusal is logged and counted.
"""

import fcntl
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import IO, Any, Protocol

import orjson

from feedrank.domain import Call, Query, Ranking
from feedrank.output import output
from feedrank.telemetry import logger

RECORD = "decision"
ONE_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z

LOCK_TRIES = 125
LOCK_PAUSE_S = 0.002  # a record is written in less
FIREHOSE_CONNECT_TIMEOUT_S = 0.3
FIREHOSE_READ_TIMEOUT_S = 0.7  # one try: the request waits for it
FIREHOSE_PAUSE_S = 5.0  # after no answer at all
FIREHOSE_LEAST_S = 0.02  # a call that has less is not begun: one takes about 0.01
FIREHOSE_LONGEST_S = 1.2  # past what the limits above allow together
FIREHOSE_CALLS = 16  # under way at once, under a web server


class Sink(Protocol):
    """Takes one line, newline included. Raises OSError where it can't."""

    def write(self, line: bytes, day: str) -> None: ...


class Stream(Protocol):
    """A sink that is waited for, until `deadline_s` at most (`time.perf_counter()` seconds)."""

    def write(self, line: bytes, day: str, deadline_s: float) -> None: ...


class DailyFiles:
    """`predictions_YYYY-MM-DD.jsonl`, by the record's UTC day; several processes may append. The
    lock makes what a full disk left of a record this process's to take away again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, line: bytes, day: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"predictions_{day}.jsonl").open("a+b", buffering=0) as file:
            _lock(file)  # until it is closed
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line  # whoever wrote last was killed, or had no lock
            if file.write(line) < len(line):
                file.truncate(size)
                raise OSError("only a part of the record was written")


def _lock(file: IO[bytes]) -> None:
    """Raises BlockingIOError, and the record is spilled, where somebody keeps it locked."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_PAUSE_S)
    raise BlockingIOError("another process keeps the file locked")


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
                connect_timeout=FIREHOSE_CONNECT_TIMEOUT_S,
                read_timeout=FIREHOSE_READ_TIMEOUT_S,
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
        )
        self._resume_at = 0.0
        # The client's own limits hold for each wait, and for all calls alike.
        self._calls = ThreadPoolExecutor(FIREHOSE_CALLS, "firehose")

    def write(self, line: bytes, day: str, deadline_s: float = math.inf) -> None:  # noqa: ARG002
        from botocore.exceptions import BotoCoreError, ClientError

        left_s = deadline_s - perf_counter()
        if left_s < FIREHOSE_LEAST_S:
            raise OSError(f"no time is left to send it to {self._name}")
        if self._clock() < self._resume_at:
            raise OSError(f"{self._name} did not answer, and is left alone for a while")
        put = self._calls.submit(
            self._firehose.put_record, DeliveryStreamName=self._name, Record={"Data": line}
        )
        try:
            put.result(min(left_s, FIREHOSE_LONGEST_S))
        except TimeoutError as error:
            put.cancel()  # unless it is under way
            self._resume_at = self._clock() + FIREHOSE_PAUSE_S
            raise OSError(f"{self._name} did not answer in the request's time") from error
        except ClientError as error:  # throttled, too large, gone: the next record may fare better
            raise OSError(f"{self._name} answers {error.response['Error']['Code']}") from error
        except BotoCoreError as error:
            self._resume_at = self._clock() + FIREHOSE_PAUSE_S
            raise OSError(f"{self._name} can't be reached: {error}") from error


class DecisionLog:
    """With a stream, standard output has only what the stream refused."""

    def __init__(self, sinks: Sequence[Sink] = (), stream: Stream | None = None) -> None:
        self._sinks = sinks
        self._stream = stream
        self.waits = stream is not None  # for an answer, as each record is made

    def record(self, query: Query, ranking: Ranking, call: Call) -> int:
        """Returns how many sinks refused the record. Never raises for one: a request that was
        answered stays answered."""
        line = orjson.dumps(decision(query, ranking, call), option=ONE_LINE)
        day, refused = ranking.timestamp[:10], 0
        if self._stream is None or not _took(self._stream, line, day, call.deadline_s):
            output.write(line)
            refused += self._stream is not None
        refused += sum(not _took(sink, line, day) for sink in self._sinks)
        return refused


def _took(sink: Sink | Stream, line: bytes, day: str, *deadline_s: float) -> bool:
    try:
        sink.write(line, day, *deadline_s)
    except OSError as error:
        logger.error("decision record spilled", sink=type(sink).__name__, reason=str(error))
        return False
    return True


def decision(query: Query, ranking: Ranking, call: Call) -> dict[str, Any]:
    """The record; its lists stand in the caller's order. `feature_time` is what the
    features took for now: the context's `timestamp`, or when the request came."""
    ranks: list[int | None] = [None] * len(ranking.scores)  # None: dropped
    for rank, at in enumerate(ranking.order, 1):
        ranks[at] = rank
    return {
        "record": RECORD,
        "timestamp": ranking.timestamp,
        "request_id": ranking.request_id,
        "correlation_id": call.correlation_id,
        "trace_id": call.trace_id,
        "model_version": ranking.model_version,
        "model_digest": ranking.model_digest,
        "user_id": query.user_id,
        "item_ids": query.item_ids.tolist(),
        "scores": ranking.scores,
        "ranks": ranks,
        "context": ranking.context,
        "context_dropped": ranking.context_dropped,
        "feature_time": datetime.fromtimestamp(query.time_s, UTC),
        "unknown": ranking.unknown,
        "degraded": ranking.degraded,
        "latency_ms": ranking.latency_ms,
    }
