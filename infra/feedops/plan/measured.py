"""What is known of the function: from the benchmark, from its log, or from options."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from feedops.errors import OperationError
from feedops.local.emulator_log import reports
from feedops.plan import prices
from feedops.plan.service_time import ServiceTime
from feedops.workspace import PROJECT

BASELINE = PROJECT / "infra" / "feedbench" / "baseline.json"
PERCENTS = (5, 25, 50, 75, 95, 99)
BUNDLE = "10 MB"  # whose init the benchmark gives; the demo's is smaller
ITEMS = "50"  # items a request, of the front's load and of the server's rate in the benchmark
MIN_REPORTS = 100  # a p99 of fewer is just one of them
_REPORT = re.compile(r"REPORT RequestId: \S+\s+Duration: ([\d.]+) ms\s.*")
_OTHERS = {
    "init_ms": re.compile(r"Init Duration: ([\d.]+) ms"),
    "restore_ms": re.compile(r"\bRestore Duration: ([\d.]+) ms"),
    "memory_mb": re.compile(r"Memory Size: ([\d.]+) MB"),
    "used_mb": re.compile(r"Max Memory Used: ([\d.]+) MB"),
}
_METRICS = {
    "duration_ms": "durationMs",
    "init_ms": "initDurationMs",
    "restore_ms": "restoreDurationMs",
    "memory_mb": "memorySizeMB",
    "used_mb": "maxMemoryUsedMB",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """`server_per_s`: requests/s of one worker under uvicorn. `used_mb` is 0 if it is not known."""

    source: str
    service: ServiceTime
    init_ms: float
    restore_ms: float
    memory_mb: float
    server_per_s: float
    used_mb: float = 0.0


def of_benchmark(path: Path, memory_mb: float) -> Measured:
    """Of the JSON that `feedrank bench` writes. Raises OperationError for another file."""
    text = path.read_bytes()
    try:
        results: dict[str, Any] = json.loads(text)
        details = results["details"]
        latency = details["front"]["latency_ms"]
        rows = {row["key"]: row["value"] for row in results["rows"]}
        return Measured(
            f"{path.name} of {results['date'][:10]}, on {results['machine']['cpu']}",
            ServiceTime(_percentiles(latency)),
            init_ms=float(details["init_ms"][BUNDLE]["directory"]),  # null where none had a model
            restore_ms=prices.assumption("restore_ms"),
            memory_mb=memory_mb,
            server_per_s=details["servers"]["requests_per_s"]["feedrank"][ITEMS]["value"],
            used_mb=rows["memory"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise OperationError(f"{path}: not the results of a whole `feedrank bench`") from error


def _percentiles(latency: Mapping[str, Any]) -> dict[float, float]:
    """The benchmark names two, and has the others in its curve, from 0 to 100 at even steps."""
    curve = latency["curve"]
    between = np.interp(PERCENTS, np.linspace(0, 100, len(curve)), curve).tolist()
    return {p: latency.get(f"p{p}", ms) for p, ms in zip(PERCENTS, between, strict=True)}


def of_log(path: Path, otherwise: Measured) -> Measured:
    """Of Lambda's REPORT lines, as text or JSON, or of a local environment's log. What they lack
    is taken from `otherwise`. Raises OperationError for too few of them."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        found = list(_reports(lines.readlines()))
    if len(found) < MIN_REPORTS:
        raise OperationError(
            f"{path}: {len(found)} REPORT lines; percentiles need {MIN_REPORTS} or more"
        )
    durations = [report["duration_ms"] for report in found]
    percentiles = np.percentile(durations, PERCENTS).tolist()
    return Measured(
        f"{path.name}, {len(found):,} requests",
        ServiceTime(dict(zip(PERCENTS, percentiles, strict=True))),
        init_ms=_median(found, "init_ms", otherwise.init_ms),
        restore_ms=_median(found, "restore_ms", otherwise.restore_ms),
        memory_mb=_median(found, "memory_mb", otherwise.memory_mb),
        server_per_s=otherwise.server_per_s,
        used_mb=max((report.get("used_mb", 0.0) for report in found), default=0.0),
    )


def _median(found: list[dict[str, float]], key: str, otherwise: float) -> float:
    values = [report[key] for report in found if key in report]
    return median(values) if values else otherwise


def _reports(lines: list[str]) -> Iterator[dict[str, float]]:
    if any("(rapid)" in line for line in lines):  # whose own REPORT lines are wrong
        for local in reports(lines):
            init = {} if local.init_ms is None else {"init_ms": local.init_ms}
            yield {"duration_ms": local.duration_ms, **init}
        return
    for line in lines:
        if match := _REPORT.search(line):
            others = {name: pattern.search(line) for name, pattern in _OTHERS.items()}
            yield {
                "duration_ms": float(match[1]),
                **{name: float(other[1]) for name, other in others.items() if other},
            }
        elif '"platform.report"' in line:
            yield from _of_json(line)


def _of_json(line: str) -> Iterator[dict[str, float]]:
    """Of a line that may have a time or a stream's name before the JSON."""
    try:
        metrics: Mapping[str, Any] = json.loads(line[line.index("{") :])["record"]["metrics"]
        yield {name: float(metrics[key]) for name, key in _METRICS.items() if key in metrics}
    except (KeyError, TypeError, ValueError):
        return
