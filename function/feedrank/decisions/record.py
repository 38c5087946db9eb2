"""The decision record: a request and its ranking, as one JSON object."""

from datetime import UTC, datetime
from typing import Any

from feedrank.decisions.record_ids import UserHash
from feedrank.domain import Ranking, RowSources

RECORD = "decision"


def decision(ranking: Ranking, user_hash: UserHash | None = None) -> dict[str, Any]:
    """The lists are in the caller's order. `feature_time` is the time that features were computed
    for: the context's `timestamp`, or the request's. `user_id` is null where ids are hashed."""
    query, call = ranking.query, ranking.call
    ranks: list[int | None] = [None] * len(ranking.scores)  # None: dropped
    for rank, at in enumerate(ranking.order, 1):
        ranks[at] = rank
    return {
        "record": RECORD,
        "timestamp": ranking.timestamp,
        "request_id": call.request_id,
        "correlation_id": call.correlation_id,
        "trace_id": call.trace_id,
        "model_version": ranking.model_version,
        "model_digest": ranking.model_digest,
        "user_id": None if user_hash else query.user_id,
        "user_hash": user_hash and user_hash(query.user_id),
        "item_ids": query.item_ids,
        "scores": ranking.scores,
        "ranks": ranks,
        "stages": ranking.stages,
        "context": ranking.context,
        "context_dropped": ranking.context_dropped,
        "features": ranking.features,
        "feature_time": datetime.fromtimestamp(query.time_s, UTC),
        "unknown": ranking.unknown,
        "outputs": ranking.outputs,
        "row_sources": _row_sources(ranking.row_sources),
        "degraded": ranking.degraded,
        "latency_ms": ranking.latency_ms,
    }


def _row_sources(rows: RowSources | None) -> dict[str, str] | None:
    """Two texts with a letter for each row, the user's first."""
    return {"sources": rows.sources, "ages": rows.ages} if rows else None
