"""The report's pictures. Figures without pyplot: no display, no global state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedbench.results import Results

STYLE = Path(__file__).with_name("style.mplstyle")
INK, MUTED = "#1f2933", "#7b8794"
BLUE, ORANGE, GREEN, PURPLE = "#2563eb", "#ea580c", "#059669", "#7c3aed"
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
            figure = PICTURES[name][1](results.details)
            figure.savefig(directory / f"{name}.png", metadata={"Software": None})


def names(results: Results) -> list[str]:
    return [name for name, (needs, _) in PICTURES.items() if needs in results.details]


def cold_start(details: Details) -> Figure:
    """A bar starts where the one above it ends."""
    stages = grouped(details["cold_start"]["waterfall_ms"])
    figure, axes = _figure("Cold start: where the time goes", height_in=0.27 * len(stages) + 1.8)
    starts = np.cumsum([0.0, *stages.values()])
    is_import = [name.startswith(IMPORT) or name == OTHERS[0] for name in stages]
    colours = [MUTED, *(PALE_BLUE if each else BLUE for each in is_import[1:])]
    axes.barh([*stages], [*stages.values()], left=starts[:-1], color=colours, height=0.72)
    _label(axes, "%.0f")
    floor_ms = details["cold_start"]["deployed_ms"]["imports"]["p50"]
    axes.axvline(floor_ms, color=ORANGE, linewidth=1.5, linestyle="--")
    axes.text(
        floor_ms, -1.0, f"imports only: {floor_ms:.0f}", color=ORANGE, fontsize=8, ha="center"
    )
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
    stages = pd.DataFrame(details["warm_stages_us"]).add_suffix(" items")
    wholes = ", ".join(f"{items} {us:.0f}" for items, us in stages.sum().items())
    title = f"A warm request, microseconds: {wholes}"
    figure, axes = _figure(title, height_in=0.36 * len(stages) + 1.4)
    stages.plot.barh(ax=axes, color=[ORANGE, BLUE], width=0.72)
    _label(axes, "%.0f")
    axes.set_xlabel("microseconds, median")
    return figure


def latency(details: Details) -> Figure:
    figure, axes = _figure("Latency of warm requests")
    colours = (BLUE, GREEN, PURPLE, MUTED)
    for (name, us), colour in zip(details["warm_us"].items(), colours, strict=False):
        label = f"{name}: p50 {us['p50'] / 1_000:.2f} ms"
        dotted = "-" if name.startswith("handler") else ":"
        _curve(axes, np.array(us["curve"]) / 1_000, label, colour, dotted)
    if front := details.get("front"):
        label = f"HTTP front, 50 items, 100/s: p99 {front['latency_ms']['p99']:.1f} ms"
        _curve(axes, front["latency_ms"]["curve"], label, ORANGE)
    axes.set(xscale="log", xlabel="milliseconds (log)", ylabel="% of requests", ylim=(0, 100))
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def throughput(details: Details) -> Figure:
    """A bar a server with its interval, in groups by size."""
    figure, axes = _figure("Requests a second over HTTP, one worker, same model")
    rates = pd.DataFrame(details["servers"]["requests_per_s"]).add_suffix(" items", axis=0)
    value, low, high = (rates.map(lambda e, k=k: e[k]) for k in ("value", "low", "high"))
    spread = np.array([[value[n] - low[n], high[n] - value[n]] for n in value])
    colours = [BLUE, ORANGE, GREEN, *GREYS][: len(value.columns)]  # the floor stands third
    bars: Any = {"color": colours, "error_kw": {"elinewidth": 0.8, "ecolor": INK}, "capsize": 2}
    value.plot.bar(ax=axes, yerr=spread, width=0.8, rot=0, **bars)
    axes.set_ylabel("requests/s")
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def size(details: Details) -> Figure:
    megabytes = pd.Series({name: count / 1e6 for name, count in details["size_bytes"].items()})
    large = megabytes[megabytes >= SMALL_MB].sort_values(ascending=False)
    large["all others"] = megabytes.sum() - large.sum()
    title = f"Function and layers: {megabytes.sum():.0f} MB of 262 MB"
    figure, axes = _figure(title, height_in=0.3 * len(large) + 1.4)
    ours = {"function", "model layer"}
    colours = [BLUE if name in ours else PALE_BLUE for name in large.index]
    axes.barh([*large.index], large, color=colours, height=0.72)
    _label(axes, "%.1f")
    axes.set(xlabel="megabytes, unzipped", xlim=(0, 1.12 * large.max()))
    return figure


def _figure(title: str, *, height_in: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in))
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _label(axes: Axes, form: str) -> None:
    """The values at the ends of horizontal bars, of which the first is at the top."""
    for bars in axes.containers:
        axes.bar_label(bars, fmt=form, padding=3, fontsize=7.5, color=INK)  # type: ignore[arg-type]
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def _curve(axes: Axes, curve: Any, label: str, colour: str, line: str = "-") -> None:  # noqa: ANN401
    axes.plot(curve, np.linspace(0, 100, len(curve)), line, label=label, color=colour)


# By name: what of the results' details it needs, and what draws it.
PICTURES = {
    "cold_start": ("cold_start", cold_start),
    "request": ("warm_stages_us", request),
    "latency": ("warm_us", latency),
    "throughput": ("servers", throughput),
    "size": ("size_bytes", size),
}
