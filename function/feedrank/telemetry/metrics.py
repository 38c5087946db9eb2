"""The one line of each request, which is also its metrics (CloudWatch's embedded format)."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from logging import INFO
from typing import Any

import orjson

from feedrank.domain import Ranking
from feedrank.telemetry.logging import logger, metrics
from feedrank.telemetry.output import output

SERVER_ERROR = 500
NO_MODEL = 503
ONE_LINE = orjson.OPT_APPEND_NEWLINE
UNITS = {
    "InitDuration": "Milliseconds",
    "Latency": "Milliseconds",
    "FeaturesLatency": "Milliseconds",
    "ScoringLatency": "Milliseconds",
    "SnapshotAge": "Seconds",
    "ScoreMean": "None",
    "ScoreSpread": "None",
}


def request_metrics(latency_ms: float, status: int, ranking: Ranking | None) -> dict[str, float]:
    """What one request to /predict adds to the service's metrics. A ranking's decision was recorded
    before, so `ItemsScored` has as many samples as there are records."""
    if ranking is None:
        counted = {"Latency": latency_ms, "Errors": int(status >= SERVER_ERROR)}
        return counted | {"ModelUnavailable": 1} if status == NO_MODEL else counted
    scores, order = ranking.scores, ranking.order
    if ranking.unknown_items:  # which may stand last, or nowhere
        best, worst = max(scores), min(scores)
    else:
        best, worst = scores[order[0]], scores[order[-1]]
    counted = {
        "Latency": latency_ms,
        "Errors": int(status >= SERVER_ERROR),
        "FeaturesLatency": ranking.features_ms,
        "ScoringLatency": ranking.scoring_ms,
        "ItemsScored": len(scores),
        "UnknownUsers": ranking.unknown_users,
        "UnknownItems": ranking.unknown_items,
        "Degraded": int(bool(ranking.degraded)),
        "DecisionsSpilled": ranking.spilled,
        "ScoreMean": sum(scores) / len(scores),
        "ScoreSpread": best - worst,
    }
    if ranking.snapshot_age_s is not None:
        counted["SnapshotAge"] = round(ranking.snapshot_age_s)
    if ranking.warnings:
        counted["ContextWarnings"] = len(ranking.warnings)
    return counted


def log_request(fields: Mapping[str, Any], measured: Mapping[str, float]) -> None:
    """The one wide line of a request, which is also its metrics line (EMF): two would cost twice.

    Written here, not by Powertools, because it is written once a request: Powertools' logger and
    metrics take longer over it than the model takes over five items. The one dimension is the
    service; ids are plain fields, since each distinct value of a dimension is billed.
    """
    if not measured and logger.log_level > INFO:
        return
    now_s = time.time()
    line: dict[str, Any] = {
        "level": "INFO",
        "message": "request",
        "timestamp": fields.get("timestamp") or iso_utc(now_s),
        "service": metrics.service,
    }
    lost = output.lost - output.reported
    if measured:
        if lost:
            measured = {**measured, "LinesLost": lost}
        line["_aws"] = _emf(now_s, ("service",), tuple(measured))
    written = output.write(orjson.dumps({**line, **fields, **measured}, option=ONE_LINE))
    if lost and measured and written:
        output.reported += lost


def count_init(init_type: str, duration_ms: float) -> None:
    """Once a container: how it started, and how long the function's own part of that took."""
    line = {
        "service": metrics.service,
        "init_type": init_type,
        "InitDuration": duration_ms,
        "_aws": _emf(time.time(), ("service", "init_type"), ("InitDuration",)),
    }
    output.write(orjson.dumps(line, option=ONE_LINE))


def iso_utc(time_s: float) -> str:
    """`2026-11-22T12:00:00.123Z`."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _emf(time_s: float, dimensions: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Any]:
    directive = _directive(metrics.namespace, dimensions, names)
    return {"Timestamp": int(1_000 * time_s), "CloudWatchMetrics": directive}


@cache
def _directive(
    namespace: str, dimensions: tuple[str, ...], names: tuple[str, ...]
) -> orjson.Fragment:
    described = [{"Name": name, "Unit": UNITS.get(name, "Count")} for name in names]
    directive = {"Namespace": namespace, "Dimensions": [dimensions], "Metrics": described}
    return orjson.Fragment(orjson.dumps([directive]))
