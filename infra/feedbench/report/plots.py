"""The report's pictures. Figures without pyplot: no display, no global state."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedbench.results import FLOOR, Results

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, GREEN, PURPLE, RED = "#2563eb", "#ea580c", "#059669", "#7c3aed", "#dc2626"
PALE_BLUE = "#93b4f5"
GREYS = ("#52606d", "#7b8794", "#9aa5b1", "#b8c2cc", "#d3d9e0")
WIDTH_IN = 8.0
DPI = 110
LEGEND: dict[str, Any] = {"frameon": False, "labelcolor": INK, "fontsize": 8}

IMPORT = "import "
OTHERS = ("other imports", "other stages")
SMALL_MS = 4.0  # stages and packages below it share a bar
SMALL_MB = 1.0

Details = Mapping[str, Any]


def draw(results: Results, directory: Path) -> None:
    """One PNG for each picture that the results hold the data of."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names(results):
        figure = PICTURES[name][1](results.details)
        figure.savefig(directory / f"{name}.png", dpi=DPI, metadata={"Software": None})


def names(results: Results) -> list[str]:
    return [name for name, (needs, _) in PICTURES.items() if needs in results.details]


def cold_start(details: Details) -> Figure:
    """A bar starts where the one above it ends."""
    stages = grouped(details["cold_start"]["waterfall_ms"])
    names, taken_ms = list(stages), list(stages.values())
    figure, axes = _figure("Cold start: where the time goes", height_in=0.27 * len(stages) + 1.8)
    ends = np.cumsum(taken_ms)
    is_import = [name.startswith(IMPORT) or name == OTHERS[0] for name in names]
    colours = [PALE_BLUE if each else BLUE for each in is_import]
    colours = [MUTED if n == "interpreter" else c for n, c in zip(names, colours, strict=True)]
    axes.barh(range(len(names)), taken_ms, left=ends - taken_ms, color=colours, height=0.72)
    _label(axes, ends + 6, [f"{ms:.0f}" for ms in taken_ms])
    floor_ms = details["cold_start"]["deployed_ms"]["imports"]["p50"]
    axes.axvline(floor_ms, color=ORANGE, linewidth=1.5, linestyle="--")
    said = f"imports only: {floor_ms:.0f}"
    axes.text(floor_ms, -1.0, said, color=ORANGE, fontsize=8, ha="center")
    _name_rows(axes, names, "milliseconds since the process was started")
    axes.set_xlim(0, 1.08 * ends[-1])
    return figure


def grouped(stages_ms: Mapping[str, float]) -> dict[str, float]:
    """Small imports together, small stages together, before the first request."""
    groups: dict[str, float] = {}
    for name, taken_ms in stages_ms.items():
        key = name if taken_ms >= SMALL_MS else OTHERS[not name.startswith(IMPORT)]
        groups[key] = groups.get(key, 0.0) + taken_ms
    last = {name: groups.pop(name) for name in (*OTHERS, "first request") if name in groups}
    return groups | last


def request(details: Details) -> Figure:
    """Two bars a stage: few items and many."""
    by_items: dict[str, dict[str, float]] = details["warm_stages_us"]
    stages = list(next(iter(by_items.values())))
    wholes = ", ".join(f"{items} items {sum(us.values()):.0f}" for items, us in by_items.items())
    title = f"A warm request, microseconds: {wholes}"
    figure, axes = _figure(title, height_in=0.36 * len(stages) + 1.4)
    heights: Any = {f"{items} items": [*us.values()] for items, us in by_items.items()}
    options: dict[str, Any] = {"orientation": "horizontal", "group_spacing": 0.4}
    groups: Any = axes.grouped_bar(heights, colors=(ORANGE, BLUE), **options)
    for bars in groups.bar_containers:
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=7, color=INK)
    _name_rows(axes, stages, "microseconds, median")
    axes.legend(**LEGEND)
    return figure


def latency(details: Details) -> Figure:
    figure, axes = _figure("Latency of warm requests")
    for (name, each), colour in zip(
        details["warm_us"].items(), (BLUE, GREEN, PURPLE, MUTED), strict=False
    ):
        style = "-" if name.startswith("handler") else ":"
        label = f"{name}: p50 {each['p50'] / 1_000:.2f} ms"
        _curve(axes, np.array(each["curve"]) / 1_000, style, colour, label)
    if front := details.get("front"):
        label = f"HTTP front, 50 items, 100/s: p99 {front['latency_ms']['p99']:.1f} ms"
        _curve(axes, np.array(front["latency_ms"]["curve"]), "-", ORANGE, label)
    axes.set(xscale="log", xlabel="milliseconds (log)", ylabel="% of requests", ylim=(0, 100))
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(**LEGEND, loc="outside lower center", ncols=2)
    return figure


def throughput(details: Details) -> Figure:
    requests_per_s: dict[str, dict[str, dict[str, float]]] = details["servers"]["requests_per_s"]
    figure, axes = _figure("Requests a second over HTTP, one worker, same model")
    names = [name for name in requests_per_s if name != FLOOR]
    sizes = list(requests_per_s[names[0]])
    at = np.arange(len(sizes))
    width = 0.8 / len(names)
    for number, (name, colour) in enumerate(zip(names, [BLUE, ORANGE, *GREYS], strict=False)):
        left = at + (number - (len(names) - 1) / 2) * width
        estimates = [requests_per_s[name][size] for size in sizes]
        values, low, high = (np.array([e[k] for e in estimates]) for k in ("value", "low", "high"))
        axes.bar(left, values, 0.92 * width, color=colour, label=name)
        error: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 0.8, "capsize": 2}
        axes.errorbar(left, values, [values - low, high - values], **error)
    if FLOOR in requests_per_s:
        limits = [requests_per_s[FLOOR][size]["value"] for size in sizes]
        line: dict[str, Any] = {"linewidth": 1.5, "label": f"only {FLOOR}"}
        axes.hlines(limits, at - 0.43, at + 0.43, GREEN, "--", **line)
    axes.set_xticks(at, [f"{size} items" for size in sizes])
    axes.set_ylabel("requests/s")
    axes.grid(axis="x", visible=False)
    axes.legend(**LEGEND)
    return figure


def size(details: Details) -> Figure:
    megabytes = {name: count / 1e6 for name, count in details["size_bytes"].items()}
    large = {name: mb for name, mb in megabytes.items() if mb >= SMALL_MB}
    rest = sum(megabytes.values()) - sum(large.values())
    bars = dict(sorted(large.items(), key=lambda each: -each[1])) | {"all others": rest}
    title = f"Function and layers: {sum(bars.values()):.0f} MB of 262 MB"
    figure, axes = _figure(title, height_in=0.3 * len(bars) + 1.4)
    colours = [BLUE if name in {"function", "model layer"} else PALE_BLUE for name in bars]
    axes.barh(range(len(bars)), list(bars.values()), color=colours, height=0.72)
    _label(axes, np.array(list(bars.values())) + 0.8, [f"{mb:.1f}" for mb in bars.values()])
    _name_rows(axes, list(bars), "megabytes, unzipped")
    axes.set_xlim(0, 1.12 * max(bars.values()))
    return figure


def _figure(title: str, *, height_in: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _name_rows(axes: Axes, names: Sequence[str], xlabel: str) -> None:
    """The names of horizontal bars, the first at the top."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.grid(axis="y", visible=False)


def _label(axes: Axes, x: Iterable[float], texts: Iterable[str], **options: Any) -> None:  # noqa: ANN401
    """At the ends of horizontal bars."""
    for y, (at, text) in enumerate(zip(x, texts, strict=True)):
        axes.text(at, y, text, **{"va": "center", "fontsize": 8, "color": INK, **options})


def _curve(axes: Axes, curve: Any, style: str, colour: str, label: str) -> None:  # noqa: ANN401
    share = np.linspace(0, 100, len(curve))
    axes.plot(curve, share, style, color=colour, linewidth=2, label=label)


# By name: what of the results' details it needs, and what draws it.
PICTURES = {
    "cold_start": ("cold_start", cold_start),
    "request": ("warm_stages_us", request),
    "latency": ("warm_us", latency),
    "throughput": ("servers", throughput),
    "size": ("size_bytes", size),
}
