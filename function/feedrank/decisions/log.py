"""The decision record: one JSON line per request, saying what was asked and what was answered.

It goes to standard output, from where CloudWatch Logs has it, or to a Firehose stream; and to any
sink beside that. A sink that refuses a record costs nothing but itself: the line on standard output
is the spill, and the refusal is logged and counted.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import orjson

from feedrank.decisions.record import decision
from feedrank.decisions.record_ids import UserHash
from feedrank.domain import Call, Query, Ranking
from feedrank.telemetry.logging import logger
from feedrank.telemetry.output import output

ONE_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class Sink(Protocol):
    """Takes one line, newline included. Raises OSError where it can't."""

    def write(self, line: bytes, day: str) -> None: ...


class Stream(Protocol):
    """Is waited for, until `deadline_s` at most (`time.perf_counter()` seconds). Raises OSError
    where it can't."""

    def write(self, line: bytes, deadline_s: float) -> None: ...

    async def send(self, line: bytes, deadline_s: float) -> None: ...


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
