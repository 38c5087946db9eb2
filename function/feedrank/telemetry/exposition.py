"""The counters of a process as Prometheus reads them: its own text format, or OpenMetrics.

Both are a few lines a metric, so no library writes them: prometheus_client would count everything a
second time, and shares counters between workers by files. A test reads them with its parsers.
https://prometheus.io/docs/instrumenting/exposition_formats/
https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

import os
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Literal, NamedTuple

from feedrank.telemetry.container import LATENCY_BOUNDS_MS, ContainerStats
from feedrank.telemetry.output import output

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
FORMATS = (TEXT, OPENMETRICS)
MS_PER_S = 1_000


class Sample(NamedTuple):
    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Metric(NamedTuple):
    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[Sample]


def exposition(stats: ContainerStats, model: Mapping[str, str], media_type: str) -> bytes:
    """`model` has the labels of the one that serves; there are none where none does. Every sample
    has the label `worker`, the process's id, since a scrape reaches one of several processes."""
    worker = {"worker": str(os.getpid())}
    is_openmetrics = media_type == OPENMETRICS
    lines = [
        line
        for metric in _metrics(stats, model)
        for line in _lines(metric, worker, is_openmetrics=is_openmetrics)
    ]
    if is_openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _metrics(stats: ContainerStats, model: Mapping[str, str]) -> Iterator[Metric]:
    by_status = [Sample(n, {"status": str(s)}, "_total") for s, n in sorted(stats.statuses.items())]
    yield Metric("feedrank_requests", "counter", "Requests to be ranked, by status.", by_status)
    seconds = "feedrank_request_duration_seconds"
    yield Metric(seconds, "histogram", "Their duration in the process.", _durations(stats))
    for name, total, text in (
        ("predictions", stats.predictions, "Items scored."),
        ("degraded", stats.degraded, "Rankings with less than they should have."),
        ("unknown_items", stats.unknown_items, "Items without features."),
        ("decisions_spilled", stats.spilled, "Decision records that a sink refused."),
        ("lines_lost", output.lost, "Lines that standard output did not take."),
    ):
        yield Metric(f"feedrank_{name}", "counter", text, [Sample(total, suffix="_total")])
    uptime = [Sample(stats.uptime_s)]
    yield Metric("feedrank_uptime_seconds", "gauge", "Since the process has started.", uptime)
    serving = [Sample(1, model)] if model else []
    yield Metric("feedrank_model", "gauge", "1, with the model that serves.", serving)


def _durations(stats: ContainerStats) -> list[Sample]:
    counts = list(accumulate(stats.latency_classes))
    bounds = [*(str(bound / MS_PER_S) for bound in LATENCY_BOUNDS_MS), "+Inf"]
    return [
        *(
            Sample(count, {"le": bound}, "_bucket")
            for bound, count in zip(bounds, counts, strict=True)
        ),
        Sample(stats.latency_sum_ms / MS_PER_S, suffix="_sum"),
        Sample(counts[-1], suffix="_count"),
    ]


def _lines(metric: Metric, worker: Mapping[str, str], *, is_openmetrics: bool) -> Iterator[str]:
    """OpenMetrics calls a counter by its name without `_total`."""
    is_counter = metric.type == "counter" and not is_openmetrics
    family = f"{metric.name}_total" if is_counter else metric.name
    yield f"# HELP {family} {metric.help}"
    yield f"# TYPE {family} {metric.type}"
    for sample in metric.samples:
        labels = {**sample.labels, **worker}
        inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        yield f"{metric.name}{sample.suffix}{{{inside}}} {sample.value}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
