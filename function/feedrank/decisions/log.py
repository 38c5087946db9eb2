"""The decision log: one JSON line per request, with what was requested and what was ranked.

Each record goes to all sinks. Standard output, which CloudWatch Logs collects, is the spill: it has
every record that a sink refused, and all of them unless a sink replaces it. A refusal is logged and
counted, and never fails a request.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import orjson

from feedrank.decisions.record import decision
from feedrank.decisions.record_ids import UserHash
from feedrank.decisions.sinks import DecisionRecord, DecisionSink
from feedrank.decisions.sinks.bounded import BoundedSink, wait_for_writes
from feedrank.domain import Ranking
from feedrank.telemetry.logging import logger
from feedrank.telemetry.output import output

ONE_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class DecisionLog:
    def __init__(
        self,
        sinks: Sequence[DecisionSink] = (),
        user_hash: UserHash | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sinks = [BoundedSink(sink, clock) for sink in sinks]
        self._prints_all = not any(sink.replaces_output for sink in sinks)
        self._user_hash = user_hash

    def restart(self) -> None:
        """After a SnapStart restore."""
        for sink in self._sinks:
            sink.restart()

    async def record(self, ranking: Ranking) -> int:
        """The number of sinks that refused the record. Waits for the sinks within the request's
        time, without the event loop where the request is alone."""
        line = orjson.dumps(decision(ranking, self._user_hash), option=ONE_LINE)
        if self._prints_all:
            output.write(line)
        if not self._sinks:
            return 0
        record = DecisionRecord(line, ranking.timestamp[:10], ranking.call.deadline_s)
        try:
            refusals = await self._write(record, is_alone=ranking.call.is_alone)
        except asyncio.CancelledError:  # the server ends, or the caller went away
            self._spill(record)
            raise
        for name, reason in refusals:
            logger.error("decision record spilled", sink=name, reason=reason)
        if refusals:
            self._spill(record)
        return len(refusals)

    async def _write(self, record: DecisionRecord, *, is_alone: bool) -> list[tuple[str, str]]:
        """Names of the sinks that refused it, with the reason of each."""
        writes, refusals = [], []
        for sink in self._sinks:
            try:
                writes.append((sink, sink.begin(record)))
            except OSError as error:
                refusals.append((sink.name, str(error)))
        if writes:
            pending = [write for _, write in writes]
            await wait_for_writes(pending, record.deadline_s, is_alone=is_alone)
        for sink, write in writes:
            try:
                sink.end(write)
            except OSError as error:
                refusals.append((sink.name, str(error)))
        return refusals

    def _spill(self, record: DecisionRecord) -> None:
        if not self._prints_all:
            output.write(record.line)
