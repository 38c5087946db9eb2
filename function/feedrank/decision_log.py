"""The decision record: one JSON line per request, saying what was asked and what was answered.

It goes to standard output, from where CloudWatch Logs has it, or to a Firehose stream; and to any
sink beside that. A sink that refuses a record costs nothing but itself: the line on standard output
is the spill, and the refusal is logged and counted.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from feedrank.domain import Call, Query, Ranking
from feedrank.output import output
from feedrank.record_ids import UserHash
from feedrank.telemetry import logger

RECORD = "decision"
ONE_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z

LOCK_TRIES = 125
REPLACEMENTS = 3  # of a file, one after the other, while a record is written
LOCK_PAUSE_S = 0.002  # a record is written in less


class Sink(Protocol):
    """Takes one line, newline included. Raises OSError where it can't."""

    def write(self, line: bytes, day: str) -> None: ...


class Stream(Protocol):
    """Is waited for, until `deadline_s` at most (`time.perf_counter()` seconds). Raises OSError
    where it can't."""

    def write(self, line: bytes, deadline_s: float) -> None: ...

    async def send(self, line: bytes, deadline_s: float) -> None: ...


class DailyFiles:
    """`predictions_YYYY-MM-DD.jsonl`, by the record's UTC day; several processes may append. The
    lock makes what a full disk left of a record this process's to take away again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, line: bytes, day: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(REPLACEMENTS):
            if self._appended(line, day):
                return
        raise OSError("the file is replaced again and again")

    def _appended(self, line: bytes, day: str) -> bool:
        """Not where an erasure put another file in the place of what is open."""
        with (self._folder / f"predictions_{day}.jsonl").open("a+b", buffering=0) as file:
            _lock(file)  # until it is closed
            if not os.fstat(file.fileno()).st_nlink:
                return False
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line  # whoever wrote last was killed, or had no lock
            if file.write(line) < len(line):
                file.truncate(size)
                raise OSError("only a part of the record was written")
        return True


def _lock(file: IO[bytes]) -> None:
    """Raises BlockingIOError, and the record is spilled, where somebody keeps it locked."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_PAUSE_S)
    raise BlockingIOError("another process keeps the file locked")


class DecisionLog:
    """With a stream, standard output has only what the stream refused."""

    def __init__(
        self,
        sinks: Sequence[Sink] = (),
        stream: Stream | None = None,
        user_hash: UserHash | None = None,
    ) -> None:
        self._sinks = sinks
        self._stream = stream
        self._user_hash = user_hash

    def record(self, query: Query, ranking: Ranking, call: Call) -> int:
        """Returns how many sinks refused the record. Never raises for one: a request that was
        answered stays answered."""
        line = self._line(query, ranking, call)
        if self._stream is None:
            output.write(line)
            return self._kept(line, ranking)
        try:
            self._stream.write(line, call.deadline_s)
            refused = 0
        except OSError as error:
            refused = _spilled(line, self._stream, error)
        return refused + self._kept(line, ranking)

    async def record_beside(self, query: Query, ranking: Ranking, call: Call) -> int:
        """The same, while the event loop goes on. A record whose request is ended at the server's
        own end is spilled."""
        if self._stream is None:
            return self.record(query, ranking, call)
        line = self._line(query, ranking, call)
        try:
            await self._stream.send(line, call.deadline_s)
            refused = 0
        except OSError as error:
            refused = _spilled(line, self._stream, error)
        except asyncio.CancelledError:
            output.write(line)
            self._kept(line, ranking)
            raise
        return refused + self._kept(line, ranking)

    def _line(self, query: Query, ranking: Ranking, call: Call) -> bytes:
        return orjson.dumps(decision(query, ranking, call, self._user_hash), option=ONE_LINE)

    def _kept(self, line: bytes, ranking: Ranking) -> int:
        """How many sinks refused it."""
        refused = 0
        for sink in self._sinks:
            try:
                sink.write(line, ranking.timestamp[:10])
            except OSError as error:
                _report(sink, error)
                refused += 1
        return refused


def _spilled(line: bytes, stream: Stream, error: OSError) -> int:
    output.write(line)
    _report(stream, error)
    return 1


def _report(sink: Sink | Stream, error: OSError) -> None:
    logger.error("decision record spilled", sink=type(sink).__name__, reason=str(error))


def decision(
    query: Query, ranking: Ranking, call: Call, user_hash: UserHash | None = None
) -> dict[str, Any]:
    """The record; its lists stand in the caller's order. `feature_time` is what the
    features took for now: the context's `timestamp`, or when the request came. Where user ids are
    hashed, `user_id` is null."""
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
        "user_id": None if user_hash else query.user_id,
        "user_hash": user_hash and user_hash(query.user_id),
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
