"""The report's pictures. Figures without pyplot: no display, no global state."""

from collections.abc import Mapping
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

IMPORT = "import "
SMALL_MS = 4.0  # stages and packages below it share a bar
SMALL_MB = 1.0


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """One PNG for each picture that the results hold the data of."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in names(results)}
    for name, path in paths.items():
        PICTURES[name](results.details).savefig(path, dpi=DPI, metadata={"Software": None})
    return paths


def names(results: Results) -> list[str]:
    return [name for name, key in NEEDS.items() if key in results.details]


def cold_start(details: Mapping[str, Any]) -> Figure:
    """A bar starts where the one above it ends."""
    found = details["cold_start"]
    stages = grouped(found["waterfall_ms"])
    figure, axes = _figure("Cold start: where the time goes", height_in=0.27 * len(stages) + 1.8)
    begun = 0.0
    for at, (name, taken_ms) in enumerate(stages.items()):
        colour = PALE_BLUE if name.startswith(IMPORT) or name == "other imports" else BLUE
        colour = MUTED if name == "interpreter" else colour
        axes.barh(at, taken_ms, left=begun, color=colour, height=0.72)
        begun += taken_ms
        axes.text(begun + 6, at, f"{taken_ms:.0f}", va="center", fontsize=8, color=INK)
    floor_ms = found["deployed_ms"]["imports"]["p50"]
    axes.axvline(floor_ms, color=ORANGE, linewidth=1.5, linestyle="--")
    axes.text(
        floor_ms, -1.0, f"imports only: {floor_ms:.0f}", color=ORANGE, fontsize=8, ha="center"
    )
    axes.set_yticks(range(len(stages)), list(stages), fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds since the process was started", xlim=(0, 1.08 * begun))
    axes.grid(axis="y", visible=False)
    return figure


def grouped(stages_ms: Mapping[str, float]) -> dict[str, float]:
    """Small imports together, small stages together, in the order of their first."""
    made: dict[str, float] = {}
    for name, taken_ms in stages_ms.items():
        small = taken_ms < SMALL_MS
        small_name = "other imports" if name.startswith(IMPORT) else "other stages"
        key = small_name if small else name
        made[key] = made.get(key, 0.0) + taken_ms
    others = {name: made.pop(name) for name in ("other imports", "other stages") if name in made}
    last = {name: made.pop(name) for name in ("first request",) if name in made}
    return made | others | last


def latency(details: Mapping[str, Any]) -> Figure:
    warm_us, front = details["warm_us"], details.get("front")
    figure, axes = _figure("Latency of warm requests")
    colours = iter((BLUE, GREEN, PURPLE, MUTED))
    curves = {
        f"{name}: p50 {each['p50'] / 1_000:.2f} ms": np.array(each["curve"]) / 1_000
        for name, each in warm_us.items()
    }
    styles = {name: "-" if name.startswith("handler") else ":" for name in curves}
    for name, curve in curves.items():
        share = np.linspace(0, 100, len(curve))
        axes.plot(curve, share, styles[name], color=next(colours), linewidth=2, label=name)
    if front:
        curve = np.array(front["latency_ms"]["curve"])
        name = f"HTTP front, 50 items, 100/s: p99 {front['latency_ms']['p99']:.1f} ms"
        axes.plot(curve, np.linspace(0, 100, len(curve)), color=ORANGE, linewidth=2, label=name)
    axes.set(xscale="log", xlabel="milliseconds (log)", ylabel="% of requests", ylim=(0, 100))
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(frameon=False, labelcolor=INK, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def request(details: Mapping[str, Any]) -> Figure:
    """Two bars a stage: few items and many."""
    by_items: dict[str, dict[str, float]] = details["warm_stages_us"]
    stages = list(next(iter(by_items.values())))
    wholes = ", ".join(f"{items} items {sum(us.values()):.0f}" for items, us in by_items.items())
    figure, axes = _figure(
        f"A warm request, microseconds: {wholes}", height_in=0.36 * len(stages) + 1.4
    )
    height = 0.8 / len(by_items)
    colours = zip(by_items.items(), (ORANGE, BLUE), strict=False)
    for number, ((items, stages_us), colour) in enumerate(colours):
        at = np.arange(len(stages)) + (number - (len(by_items) - 1) / 2) * height
        taken_us = list(stages_us.values())
        axes.barh(at, taken_us, 0.92 * height, color=colour, label=f"{items} items")
        for y, us in zip(at, taken_us, strict=True):
            axes.text(us + 4, y, f"{us:.0f}", va="center", fontsize=7, color=INK)
    axes.set_yticks(range(len(stages)), stages, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("microseconds, median")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure


def throughput(details: Mapping[str, Any]) -> Figure:
    requests_per_s: dict[str, dict[str, dict[str, float]]] = details["servers"]["requests_per_s"]
    figure, axes = _figure("Requests a second over HTTP, one worker, same model")
    names = [name for name in requests_per_s if name != FLOOR]
    sizes = list(requests_per_s[names[0]])
    colours = dict(zip(names, [BLUE, ORANGE, *GREYS], strict=False))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        at = np.arange(len(sizes)) + (number - (len(names) - 1) / 2) * width
        found = [requests_per_s[name][size] for size in sizes]
        values = np.array([each["value"] for each in found])
        spread = [
            values - [each["low"] for each in found],
            np.array([each["high"] for each in found]) - values,
        ]
        axes.bar(at, values, 0.92 * width, color=colours[name], label=name)
        axes.errorbar(at, values, spread, fmt="none", ecolor=INK, elinewidth=0.8, capsize=2)
    if FLOOR in requests_per_s:
        limits = [requests_per_s[FLOOR][size]["value"] for size in sizes]
        ends = np.arange(len(sizes)) - 0.43, np.arange(len(sizes)) + 0.43
        axes.hlines(limits, *ends, GREEN, "--", linewidth=1.5, label=f"only {FLOOR}")
    axes.set_xticks(range(len(sizes)), [f"{size} items" for size in sizes])
    axes.set_ylabel("requests/s")
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure


def size(details: Mapping[str, Any]) -> Figure:
    megabytes = {name: count / 1e6 for name, count in details["size_bytes"].items()}
    large = {name: mb for name, mb in megabytes.items() if mb >= SMALL_MB}
    rest = sum(megabytes.values()) - sum(large.values())
    bars = dict(sorted(large.items(), key=lambda each: -each[1])) | {"all others": rest}
    total = sum(bars.values())
    figure, axes = _figure(
        f"Function and layers: {total:.0f} MB of 262 MB", height_in=0.3 * len(bars) + 1.4
    )
    ours = {"function", "model layer"}
    axes.barh(
        range(len(bars)),
        list(bars.values()),
        color=[BLUE if name in ours else PALE_BLUE for name in bars],
        height=0.72,
    )
    for at, mb in enumerate(bars.values()):
        axes.text(mb + 0.8, at, f"{mb:.1f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(bars)), list(bars), fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="megabytes, unzipped", xlim=(0, 1.12 * max(bars.values())))
    axes.grid(axis="y", visible=False)
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


NEEDS = {
    "cold_start": "cold_start",
    "request": "warm_stages_us",
    "latency": "warm_us",
    "throughput": "servers",
    "size": "size_bytes",
}
PICTURES = {
    "cold_start": cold_start,
    "request": request,
    "latency": latency,
    "throughput": throughput,
    "size": size,
}
