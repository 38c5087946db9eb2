"""Counters of one process, for `/metrics`."""

import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable

import numpy as np

from feedrank.domain import Ranking
from feedrank.telemetry.metrics import SERVER_ERROR
from feedrank.telemetry.output import output

RATE_WINDOW_S = 60.0
MAX_TIMES = 100_000  # 60 s at over 1,600 requests/s
MAX_LATENCIES = 2_048
# Upper bounds of the histogram; what is above the last one is in a class of its own.
LATENCY_BOUNDS_MS = (0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2e3, 5e3, 1e4)


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
        self.statuses: dict[int, int] = defaultdict(int)  # requests by the status they got
        self.latency_classes = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self.latency_sum_ms = 0.0
        self.predictions = 0
        self.degraded = 0
        self.unknown_items = 0
        self.spilled = 0
        self.last_prediction_at: str | None = None

    def count(self, latency_ms: float, status: int, ranking: Ranking | None) -> None:
        """One request to /predict, whatever its status."""
        self.statuses[status] += 1
        self.latency_classes[bisect_left(LATENCY_BOUNDS_MS, latency_ms)] += 1
        self.latency_sum_ms += latency_ms
        self._latencies_ms.append(latency_ms)
        self._recent.append(self._clock())
        if ranking:
            self.predictions += len(ranking.scores)
            self.degraded += bool(ranking.degraded)
            self.unknown_items += ranking.unknown_items
            self.spilled += ranking.spilled
            self.last_prediction_at = ranking.timestamp

    def summary(self) -> dict[str, float | int | str]:
        p50, p99 = np.percentile(self._latencies_ms or [0.0], [50, 99]).tolist()
        requests = sum(self.statuses.values())
        errors = sum(n for status, n in self.statuses.items() if status >= SERVER_ERROR)
        return {
            "scope": "container",
            "requests_total": requests,
            "requests_per_second": round(self._rate(), 3),
            "latency_p50_ms": round(p50, 3),
            "latency_p99_ms": round(p99, 3),
            "error_rate": round(errors / max(requests, 1), 6),
            "predictions_total": self.predictions,
            "lines_lost": output.lost,
        }

    @property
    def uptime_s(self) -> float:
        return self._clock() - self._started

    def _rate(self) -> float:
        since = self._clock() - RATE_WINDOW_S
        recent = sum(1 for at in self._recent if at >= since)
        return recent / max(min(self.uptime_s, RATE_WINDOW_S), 1.0)
