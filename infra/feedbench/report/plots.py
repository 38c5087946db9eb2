"""The report's pictures. Figures without pyplot: no display, no global state."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from feedbench.results import FLOOR, Results

STYLE = Path(__file__).with_name("style.mplstyle")
INK, MUTED = "#1f2933", "#7b8794"
BLUE, ORANGE, GREEN, PURPLE, RED = "#2563eb", "#ea580c", "#059669", "#7c3aed", "#dc2626"
PALE_BLUE = "#93b4f5"
GREYS = ("#52606d", "#7b8794", "#9aa5b1", "#b8c2cc", "#d3d9e0")
WIDTH_IN = 8.0

IMPORT = "import "
OTHERS = ("other imports", "other stages")
SMALL_MS = 4.0  # stages and packages below it share a bar
SMALL_MB = 1.0

Details = Mapping[str, Any]


def draw(results: Results, directory: Path) -> None:
    """One PNG for each picture that the results hold the data of."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names(results):
        with style.context(STYLE):
            save(PICTURES[name][1](results.details), directory / f"{name}.png")


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})


def names(results: Results) -> list[str]:
    return [name for name, (needs, _) in PICTURES.items() if needs in results.details]


def cold_start(details: Details) -> Figure:
    """A bar starts where the one above it ends."""
    stages = grouped(details["cold_start"]["waterfall_ms"])
    figure, axes = _figure("Cold start: where the time goes", height_in=0.27 * len(stages) + 1.8)
    starts = np.cumsum([0.0, *stages.values()])
    is_import = [name.startswith(IMPORT) or name == OTHERS[0] for name in stages]
    colours = [MUTED, *(PALE_BLUE if each else BLUE for each in is_import[1:])]
    _bars(axes, stages, colours, "%.0f", starts[:-1])
    floor_ms = details["cold_start"]["deployed_ms"]["imports"]["p50"]
    axes.axvline(floor_ms, color=ORANGE, linewidth=1.5, linestyle="--")
    text: dict[str, Any] = {"color": ORANGE, "fontsize": 8, "ha": "center"}
    axes.text(floor_ms, -1.0, f"imports only: {floor_ms:.0f}", **text)
    axes.set(xlabel="milliseconds since the process was started", xlim=(0, 1.08 * starts[-1]))
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
    by_items = details["warm_stages_us"]
    stages = list(next(iter(by_items.values())))
    wholes = ", ".join(f"{items} items {sum(us.values()):.0f}" for items, us in by_items.items())
    title = f"A warm request, microseconds: {wholes}"
    figure, axes = _figure(title, height_in=0.36 * len(stages) + 1.4)
    heights: Any = {f"{items} items": [*us.values()] for items, us in by_items.items()}
    options: dict[str, Any] = {"orientation": "horizontal", "group_spacing": 0.4}
    bars: Any = axes.grouped_bar(heights, tick_labels=stages, colors=(ORANGE, BLUE), **options)
    _label(axes, bars.bar_containers, "%.0f")
    axes.set_xlabel("microseconds, median")
    axes.legend()
    return figure


def latency(details: Details) -> Figure:
    figure, axes = _figure("Latency of warm requests")
    colours = (BLUE, GREEN, PURPLE, MUTED)
    for (name, each), colour in zip(details["warm_us"].items(), colours, strict=False):
        label = f"{name}: p50 {each['p50'] / 1_000:.2f} ms"
        dotted = "-" if name.startswith("handler") else ":"
        _curve(axes, np.array(each["curve"]) / 1_000, label, color=colour, linestyle=dotted)
    if front := details.get("front"):
        label = f"HTTP front, 50 items, 100/s: p99 {front['latency_ms']['p99']:.1f} ms"
        _curve(axes, np.array(front["latency_ms"]["curve"]), label, color=ORANGE)
    axes.set(xscale="log", xlabel="milliseconds (log)", ylabel="% of requests", ylim=(0, 100))
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def throughput(details: Details) -> Figure:
    requests_per_s = dict(details["servers"]["requests_per_s"])
    floor = requests_per_s.pop(FLOOR, None)
    figure, axes = _figure("Requests a second over HTTP, one worker, same model")
    values, low, high = (
        {name: [size[key] for size in sizes.values()] for name, sizes in requests_per_s.items()}
        for key in ("value", "low", "high")
    )
    sizes = [f"{items} items" for items in next(iter(requests_per_s.values()))]
    colours = [BLUE, ORANGE, *GREYS][: len(values)]
    bars: Any = axes.grouped_bar(values, tick_labels=sizes, colors=colours, group_spacing=1)  # type: ignore[arg-type]
    for name, container in zip(values, bars.bar_containers, strict=True):
        at = [bar.get_x() + bar.get_width() / 2 for bar in container]
        spread = np.abs(np.array([low[name], high[name]]) - values[name])
        axes.errorbar(at, values[name], spread, fmt="none", ecolor=INK, elinewidth=0.8, capsize=2)
    if floor:
        ends = np.arange(len(floor)) - 0.43, np.arange(len(floor)) + 0.43
        limits = [each["value"] for each in floor.values()]
        axes.hlines(limits, *ends, GREEN, "--", label=f"only {FLOOR}", linewidth=1.5)
    axes.set_ylabel("requests/s")
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def size(details: Details) -> Figure:
    megabytes = {name: count / 1e6 for name, count in details["size_bytes"].items()}
    large = {name: mb for name, mb in megabytes.items() if mb >= SMALL_MB}
    bars = dict(sorted(large.items(), key=lambda each: -each[1]))
    bars["all others"] = sum(megabytes.values()) - sum(large.values())
    title = f"Function and layers: {sum(bars.values()):.0f} MB of 262 MB"
    figure, axes = _figure(title, height_in=0.3 * len(bars) + 1.4)
    ours = {"function", "model layer"}
    _bars(axes, bars, [BLUE if name in ours else PALE_BLUE for name in bars], "%.1f")
    axes.set(xlabel="megabytes, unzipped", xlim=(0, 1.12 * max(bars.values())))
    return figure


def _figure(title: str, *, height_in: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in))
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _bars(
    axes: Axes, by_name: Mapping[str, float], colours: list[str], form: str, left: ArrayLike = 0
) -> None:
    widths = list(by_name.values())
    bars = axes.barh(list(by_name), widths, left=left, color=colours, height=0.72)
    _label(axes, [bars], form)


def _label(axes: Axes, containers: Iterable[Any], form: str) -> None:
    """The values at the ends of horizontal bars, of which the first is at the top."""
    for bars in containers:
        axes.bar_label(bars, fmt=form, padding=3, fontsize=7.5, color=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def _curve(axes: Axes, curve: Any, label: str, **options: Any) -> None:  # noqa: ANN401
    axes.plot(curve, np.linspace(0, 100, len(curve)), label=label, **options)


# By name: what of the results' details it needs, and what draws it.
PICTURES = {
    "cold_start": ("cold_start", cold_start),
    "request": ("warm_stages_us", request),
    "latency": ("warm_us", latency),
    "throughput": ("servers", throughput),
    "size": ("size_bytes", size),
}
