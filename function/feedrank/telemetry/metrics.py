"""Every metric that the function writes, and the lines that hold them (CloudWatch's EMF)."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from logging import INFO
from typing import Any, Literal, NamedTuple

import orjson

from feedrank import shortcuts
from feedrank.domain import Ranking, RowSources
from feedrank.telemetry.logging import logger, service
from feedrank.telemetry.output import output

SERVER_ERROR = 500
NO_MODEL = 503
ONE_LINE = orjson.OPT_APPEND_NEWLINE


class Metric(NamedTuple):
    unit: Literal["Count", "Milliseconds", "Seconds", "None"]
    written_by: str
    dimensions: tuple[str, ...] = ("service",)


# All by name. A test compares them with what is written, dashboard and alarms with them.
METRICS: Mapping[str, Metric] = {
    # one sample per request to /predict
    "Latency": Metric("Milliseconds", "request_metrics"),
    "Errors": Metric("Count", "request_metrics"),  # statuses of 500 and above
    "ModelUnavailable": Metric("Count", "request_metrics"),
    # one sample per ranking, and so per decision record
    "FeaturesLatency": Metric("Milliseconds", "request_metrics"),
    "ScoringLatency": Metric("Milliseconds", "request_metrics"),
    "ItemsScored": Metric("Count", "request_metrics"),
    "UnknownUsers": Metric("Count", "request_metrics"),
    "UnknownItems": Metric("Count", "request_metrics"),
    "Degraded": Metric("Count", "request_metrics"),
    "DecisionsSpilled": Metric("Count", "request_metrics"),  # refusals, by any sink
    "ScoreMean": Metric("None", "request_metrics"),
    "ScoreSpread": Metric("None", "request_metrics"),
    "SnapshotAge": Metric("Seconds", "request_metrics"),
    "ContextWarnings": Metric("Count", "request_metrics"),
    # of rows that a live store has, or that stand in for them
    "RowsFromStore": Metric("Count", "request_metrics"),
    "RowsFromCache": Metric("Count", "request_metrics"),
    "RowsFromOldCache": Metric("Count", "request_metrics"),
    "RowsFromSnapshot": Metric("Count", "request_metrics"),
    "RowsFromDefaults": Metric("Count", "request_metrics"),
    "RowsUnknown": Metric("Count", "request_metrics"),
    "RowsRefused": Metric("Count", "request_metrics"),
    "OldestRow": Metric("Seconds", "request_metrics"),
    # with a later request's
    "LinesLost": Metric("Count", "log_request"),
    # one sample per container, and per SnapStart restore
    "InitDuration": Metric("Milliseconds", "count_init", ("service", "init_type")),
}

# By the letter of a row's source in the decision record.
ROW_METRICS: Mapping[str, str] = {
    "s": "RowsFromStore",
    "c": "RowsFromCache",
    "o": "RowsFromOldCache",
    "b": "RowsFromSnapshot",
    "d": "RowsFromDefaults",
    "u": "RowsUnknown",
}


def request_metrics(latency_ms: float, status: int, ranking: Ranking | None) -> dict[str, float]:
    """Samples of one request to /predict."""
    if ranking is None:
        samples = {"Latency": latency_ms, "Errors": int(status >= SERVER_ERROR)}
        return samples | {"ModelUnavailable": 1} if status == NO_MODEL else samples
    scores, order = ranking.scores, ranking.order
    if ranking.unknown_items:  # which may be last, or dropped
        best, worst = max(scores), min(scores)
    else:
        best, worst = scores[order[0]], scores[order[-1]]
    samples = {
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
        samples["SnapshotAge"] = round(ranking.snapshot_age_s)
    if ranking.warnings:
        samples["ContextWarnings"] = len(ranking.warnings)
    if ranking.row_sources:
        samples |= _row_metrics(ranking.row_sources)
    return samples


def _row_metrics(rows: RowSources) -> dict[str, float]:
    samples: dict[str, float] = {
        name: count for letter, name in ROW_METRICS.items() if (count := rows.sources.count(letter))
    }
    if rows.refused:
        samples["RowsRefused"] = rows.refused
    if rows.oldest_s is not None:
        samples["OldestRow"] = round(rows.oldest_s)
    return samples


def log_request(fields: Mapping[str, Any], samples: Mapping[str, float]) -> None:
    """Writes the one line of a request, which holds its metrics too: two lines would cost twice.

    Powertools' logger and metrics take longer over it than the model takes over five items. The one
    dimension is the service: each distinct value of a dimension is billed, so ids are plain fields.
    """
    if not samples and logger.log_level > INFO:
        return
    now_s = time.time()
    line: dict[str, Any] = {
        "level": "INFO",
        "message": "request",
        "timestamp": fields.get("timestamp") or iso_utc(now_s),
        "service": service.name,
    }
    lost = output.lost - output.reported
    if samples and lost:
        samples = {**samples, "LinesLost": lost}
    if samples:
        if shortcuts.EMF_LINE:
            line["_aws"] = _emf(now_s, tuple(samples))
        else:
            line |= _by_powertools(samples)
    is_written = output.write(orjson.dumps({**line, **fields, **samples}, option=ONE_LINE))
    if lost and samples and is_written:
        output.reported += lost


def count_init(init_type: str, duration_ms: float) -> None:
    """Writes how a container was started, and how long the function's own code took."""
    line = {
        "service": service.name,
        "init_type": init_type,
        "InitDuration": duration_ms,
        "_aws": _emf(time.time(), ("InitDuration",)),
    }
    output.write(orjson.dumps(line, option=ONE_LINE))


def iso_utc(time_s: float) -> str:
    """`2026-11-22T12:00:00.123Z`."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _emf(time_s: float, names: tuple[str, ...]) -> dict[str, Any]:
    """Metrics of the same dimensions."""
    return {
        "Timestamp": int(1_000 * time_s),  # milliseconds
        "CloudWatchMetrics": _directive(service.namespace, names),
    }


def _by_powertools(samples: Mapping[str, float]) -> dict[str, Any]:
    """What the shortcut replaces."""
    from aws_lambda_powertools.metrics import EphemeralMetrics

    metrics = EphemeralMetrics(namespace=service.namespace, service=service.name)
    for name, sample in samples.items():
        metrics.add_metric(name, METRICS[name].unit, sample)
    return dict(metrics.serialize_metric_set())


@cache
def _directive(namespace: str, names: tuple[str, ...]) -> orjson.Fragment:
    directive = {
        "Namespace": namespace,
        "Dimensions": [METRICS[names[0]].dimensions],
        "Metrics": [{"Name": name, "Unit": METRICS[name].unit} for name in names],
    }
    return orjson.Fragment(orjson.dumps([directive]))
