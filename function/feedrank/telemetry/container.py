"""Counters of one container, for `/metrics`."""

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from feedrank.domain import Ranking
from feedrank.telemetry.metrics import SERVER_ERROR
from feedrank.telemetry.output import output

RATE_WINDOW_S = 60.0
MAX_TIMES = 100_000  # 60 s at over 1,600 requests/s
MAX_LATENCIES = 2_048


class ContainerStats:
    """Counts since this container started. Other containers have their own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Counts from zero, as after a SnapStart restore."""
        self._started = self._clock()
        self._latencies_ms: deque[float] = deque(maxlen=MAX_LATENCIES)
        self._recent: deque[float] = deque(maxlen=MAX_TIMES)
        self._errors = 0
        self._requests = 0
        self._predictions = 0
        self.last_prediction_at: str | None = None

    def count(self, latency_ms: float, status: int, ranking: Ranking | None) -> None:
        """One request to /predict, whatever its status."""
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
