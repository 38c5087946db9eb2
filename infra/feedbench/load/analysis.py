"""What the log of a load says."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

THROTTLED = 429
SECOND_S = 1.0
STEADY, RAMP, OVERLOAD, RECOVERY = "steady", "ramp", "overload", "recovery"


@dataclass(frozen=True, slots=True)
class Request:
    """`sent_s` since the start. `status` is 0 where there was no answer."""

    sent_s: float
    phase: str
    name: str
    status: int
    expected: int
    taken_ms: float

    @property
    def is_good(self) -> bool:
        return self.status == self.expected

    @property
    def is_throttled(self) -> bool:
        return self.status == THROTTLED


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    seconds: float
    requests: int
    good_per_s: float
    p50_ms: float  # of the good ones
    p99_ms: float
    throttled: int
    errors: int  # neither good nor throttled


@dataclass(frozen=True, slots=True)
class Verdict:
    phases: tuple[Phase, ...]
    saturation_per_s: float  # the best second-by-second mean of a ramp's three seconds
    recovery_s: float  # from the overload's end until a second without a refusal
    statuses: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read(log: Path) -> list[Request]:
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return sorted((Request(*line) for line in lines), key=lambda request: request.sent_s)


def verdict(requests: list[Request]) -> Verdict:
    by_phase: dict[str, list[Request]] = {}
    for request in requests:
        by_phase.setdefault(request.phase, []).append(request)
    phases = tuple(_phase(name, chosen) for name, chosen in by_phase.items())
    return Verdict(
        phases,
        saturation_per_s=saturation(requests),
        recovery_s=recovery(requests),
        statuses={str(key): count for key, count in Counter(r.status for r in requests).items()},
    )


def saturation(requests: list[Request], window_s: int = 3) -> float:
    """Good answers a second, the best window of the whole load."""
    good = per_second(request for request in requests if request.is_good)
    if len(good) < window_s:
        return float(np.mean(good)) if len(good) else 0.0
    return float(np.convolve(good, np.ones(window_s) / window_s, "valid").max())


def recovery(requests: list[Request]) -> float:
    """Seconds after the overload until nothing is refused any more; 0 where nothing was."""
    after = [request for request in requests if request.phase == RECOVERY]
    refused = [request.sent_s for request in after if not request.is_good]
    return max(refused) - after[0].sent_s if refused else 0.0


def per_second(requests: Iterable[Request]) -> Any:  # noqa: ANN401 an array of counts
    """Requests by the second in which their answer came."""
    ends = [request.sent_s + request.taken_ms / 1_000 for request in requests]
    return np.bincount(np.array(ends, dtype=int)) if ends else np.zeros(0, dtype=int)


def _phase(name: str, requests: list[Request]) -> Phase:
    seconds = max(requests[-1].sent_s - requests[0].sent_s, SECOND_S)
    good = [request.taken_ms for request in requests if request.is_good]
    p50, p99 = np.percentile(good, [50, 99]).tolist() if good else (0.0, 0.0)
    throttled = sum(request.is_throttled for request in requests)
    return Phase(
        name,
        round(seconds, 1),
        len(requests),
        round(len(good) / seconds, 1),
        round(p50, 2),
        round(p99, 2),
        throttled,
        len(requests) - len(good) - throttled,
    )
