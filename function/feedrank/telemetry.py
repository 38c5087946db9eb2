"""Logs, metrics, traces and the container's own counters, each behind a small seam.

Powertools stands behind the first three; X-Ray's SDK is imported only where tracing is on.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
from aws_lambda_powertools import Logger, Metrics, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from feedrank.domain import Ranking
from feedrank.settings import Settings

RATE_WINDOW_S = 60.0
TIMES_KEPT = 100_000  # 60 s at over 1,600 requests/s
LATENCIES_KEPT = 2_048
SERVER_ERROR = 500
NO_MODEL = 503

LambdaHandler = Callable[[dict[str, Any], Any], dict[str, Any]]

logger = Logger()
metrics = Metrics()


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
            self._predictions += len(ranking.order)
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
        }

    @property
    def uptime_s(self) -> float:
        return self._clock() - self._started

    def _rate(self) -> float:
        since = self._clock() - RATE_WINDOW_S
        recent = sum(1 for at in self._recent if at >= since)
        return recent / max(min(self.uptime_s, RATE_WINDOW_S), 1.0)


def count_request(latency_ms: float, status: int, ranking: Ranking | None) -> None:
    """One EMF line per request to /predict. The one dimension is the service: ids would be billed
    by the distinct value. A ranking's decision was recorded before, so `ItemsScored` has as many
    samples as there are records."""
    metrics.add_metric("Latency", MetricUnit.Milliseconds, latency_ms)
    metrics.add_metric("Errors", MetricUnit.Count, status >= SERVER_ERROR)
    if ranking:
        metrics.add_metric("FeaturesLatency", MetricUnit.Milliseconds, ranking.features_ms)
        metrics.add_metric("ScoringLatency", MetricUnit.Milliseconds, ranking.scoring_ms)
        metrics.add_metric("ItemsScored", MetricUnit.Count, len(ranking.order))
        metrics.add_metric("UnknownUsers", MetricUnit.Count, ranking.unknown_users)
        metrics.add_metric("UnknownItems", MetricUnit.Count, ranking.unknown_items)
        metrics.add_metric("Degraded", MetricUnit.Count, bool(ranking.degraded))
        metrics.add_metric("DecisionsSpilled", MetricUnit.Count, ranking.spilled)
        scores, order = ranking.scores, ranking.order
        metrics.add_metric("ScoreMean", MetricUnit.NoUnit, float(scores.sum()) / len(scores))
        metrics.add_metric(
            "ScoreSpread", MetricUnit.NoUnit, float(scores[order[0]] - scores[order[-1]])
        )
    elif status == NO_MODEL:
        metrics.add_metric("ModelUnavailable", MetricUnit.Count, 1)
    metrics.flush_metrics()


def count_init(init_type: str, duration_ms: float) -> None:
    """Once a container: how it started, and how long the function's own part of that took."""
    with single_metric(
        name="InitDuration",
        unit=MetricUnit.Milliseconds,
        value=duration_ms,
        namespace=metrics.namespace,
    ) as metric:
        metric.add_dimension("service", metrics.service)
        metric.add_dimension("init_type", init_type)
