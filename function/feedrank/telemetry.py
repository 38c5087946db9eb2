"""Logs, metrics, traces and the container's own counters, each behind a small seam.

Powertools stands behind the first three; X-Ray's SDK is imported only where tracing is on.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from logging import INFO, LogRecord
from typing import Any, Protocol

import numpy as np
import orjson
from aws_lambda_powertools import Logger, Metrics

from feedrank.domain import Ranking
from feedrank.output import LogStream, output
from feedrank.settings import Settings

RATE_WINDOW_S = 60.0
TIMES_KEPT = 100_000  # 60 s at over 1,600 requests/s
LATENCIES_KEPT = 2_048
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

LambdaHandler = Callable[[dict[str, Any], Any], dict[str, Any]]

# What Powertools would read of the environment by itself, `configure` sets.
logger = Logger("feedrank", "INFO", sampling_rate=0, stream=LogStream())  # type: ignore[arg-type]
metrics = Metrics()
request_ids: ContextVar[Mapping[str, Any] | None] = ContextVar("request_ids", default=None)


def _with_request_ids(record: LogRecord) -> bool:
    """Read where a line is written, since few requests write one: Powertools' own way of keeping
    keys costs each request more."""
    vars(record).update(request_ids.get() or {})
    return True


logger.addFilter(_with_request_ids)


def configure(settings: Settings) -> None:
    """Make Powertools say what the settings say."""
    logger.setLevel(settings.log_level)
    logger.append_keys(service=settings.service_name)
    metrics.service = settings.service_name
    metrics.namespace = settings.metrics_namespace


class Tracing(Protocol):
    """The seam that X-Ray's successor will take."""

    def span(self, name: str) -> AbstractContextManager[Any]: ...

    def handler(self, handler: LambdaHandler) -> LambdaHandler: ...


class NoTracing:
    def span(self, _name: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def handler(self, handler: LambdaHandler) -> LambdaHandler:
        return handler


class XRayTracing:
    """Subsegments of Lambda's own segment. No response is captured: it holds the user's feed."""

    def __init__(self, service_name: str) -> None:
        from aws_lambda_powertools import Tracer

        self._tracer = Tracer(service=service_name)

    def span(self, name: str) -> AbstractContextManager[Any]:
        span: AbstractContextManager[Any] = self._tracer.provider.in_subsegment(name=name)
        return span

    def handler(self, handler: LambdaHandler) -> LambdaHandler:
        return self._tracer.capture_lambda_handler(handler, capture_response=False)


class ContainerStats:
    """What this container has done since it started. Other containers have their own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """As a container that has just started."""
        self._started = self._clock()
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._recent: deque[float] = deque(maxlen=TIMES_KEPT)
        self._errors = 0
        self._requests = 0
        self._predictions = 0
        self.last_prediction_at: str | None = None

    def count(self, latency_ms: float, status: int, ranking: Ranking | None) -> None:
        """One request to /predict, whatever became of it."""
        self._requests += 1
        self._errors += status >= SERVER_ERROR
        self._latencies_ms.append(latency_ms)
        self._recent.append(self._clock())
        if ranking:
            self._predictions += len(ranking.scores)
            self.last_prediction_at = ranking.timestamp

    def summary(self) -> dict[str, float | int | str]:
        p50, p99 = np.percentile(self._latencies_ms or [0.0], [50, 99]).tolist()
        return {
            "scope": "container",
            "requests_total": self._requests,
            "requests_per_second": round(self._rate(), 3),
            "latency_p50_ms": round(p50, 3),
            "latency_p99_ms": round(p99, 3),
            "error_rate": round(self._errors / max(self._requests, 1), 6),
            "predictions_total": self._predictions,
            "lines_lost": output.lost,
        }

    @property
    def uptime_s(self) -> float:
        return self._clock() - self._started

    def _rate(self) -> float:
        since = self._clock() - RATE_WINDOW_S
        recent = sum(1 for at in self._recent if at >= since)
        return recent / max(min(self.uptime_s, RATE_WINDOW_S), 1.0)


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
