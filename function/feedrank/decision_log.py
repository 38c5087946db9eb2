"""The decision record: one JSON line per request, saying what was asked and what was answered.

It goes to standard output, from where CloudWatch Logs has it, and to any sink beside that. A sink
that refuses a record costs nothing but itself: the line on standard output is the spill, and the
refusal is logged and counted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic_core import to_json

from feedrank.domain import Query, Ranking
from feedrank.telemetry import logger

RECORD = "decision"


class Sink(Protocol):
    """Takes one line, newline included. Raises OSError where it can't."""

    def write(self, line: bytes, day: str) -> None: ...


class DailyFiles:
    """`predictions_YYYY-MM-DD.jsonl`, by the record's UTC day; several processes may append."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, line: bytes, day: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"predictions_{day}.jsonl").open("ab", buffering=0) as file:
            file.write(line)


class DecisionLog:
    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = sinks
        self.spilled = 0

    def record(self, query: Query, ranking: Ranking) -> None:
        """Never raises for a sink: a request that was answered stays answered."""
        line = to_json(decision(query, ranking)) + b"\n"
        sys.stdout.write(line.decode())
        for sink in self._sinks:
            try:
                sink.write(line, day=ranking.timestamp[:10])
            except OSError as error:
                self.spilled += 1
                logger.error("decision record spilled", sink=type(sink).__name__, reason=str(error))


def decision(query: Query, ranking: Ranking) -> dict[str, Any]:
    """The record; its lists stand in the caller's order."""
    ranks = np.empty_like(ranking.order)
    ranks[ranking.order] = np.arange(1, len(ranks) + 1)
    return {
        "record": RECORD,
        "timestamp": ranking.timestamp,
        "request_id": ranking.request_id,
        "model_version": ranking.model_version,
        "user_id": query.user_id,
        "item_ids": query.item_ids.tolist(),
        "scores": ranking.scores.tolist(),
        "ranks": ranks.tolist(),
        "context": query.context,
        "degraded": ranking.degraded,
        "latency_ms": ranking.latency_ms,
    }
