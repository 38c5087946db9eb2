"""Draws a dashboard's widgets as CloudWatch lays them out: cards in a grid of 24 columns."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure, SubFigure

from feedops.cloudwatch.chart import Chart, Line
from feedops.cloudwatch.points import STAND_INS

Widget = Mapping[str, Any]

COLUMNS = 24
CELL_IN = (0.7, 0.45)  # width and height of a cell of the grid, inches
PAGE, MUTED = "#f2f4f7", "#7b8794"  # as the style has them
STATES = {"OK": "#059669", "ALARM": "#dc2626", "no data here": "#9aa5b1"}
FAR = 2.5  # a threshold this many times above the data is named, not drawn
STYLE = Path(__file__).with_name("dashboard.mplstyle")


def draw(widgets: Sequence[Widget], chart: Chart, alarms: Mapping[str, str]) -> Figure:
    """`alarms`: the state of each, by the last part of its ARN in the widget."""
    rows = max(widget["y"] + widget["height"] for widget in widgets)
    with style.context(STYLE):
        figure = Figure(figsize=(CELL_IN[0] * COLUMNS, CELL_IN[1] * rows))
        grid = figure.add_gridspec(rows, COLUMNS)
        for widget in widgets:
            x, y = widget["x"], widget["y"]
            place = grid[y : y + widget["height"], x : x + widget["width"]]
            # The edge, in the colour of the page, is the gap between cards.
            card = figure.add_subfigure(place, facecolor="white", edgecolor=PAGE, linewidth=8)
            properties = widget["properties"]
            match widget["type"]:
                case "text":
                    card.set_facecolor(PAGE)
                    _text(card, properties["markdown"].splitlines())
                case "alarm":
                    names = [arn.rpartition(":")[2] for arn in properties["alarms"]]
                    note = f"at the end of a local run, {chart.period_s:g} s a period"
                    axes = _axes(card, widget, properties["title"], note)
                    _alarms(axes, {name: alarms[name] for name in names})
                case "metric":
                    _graph(card, widget, chart)
        return figure


def _axes(card: SubFigure, widget: Widget, title: str, note: str) -> Axes:
    width_in, height_in = CELL_IN[0] * widget["width"], CELL_IN[1] * widget["height"]
    box = (0.7 / width_in, 0.55 / height_in, 1 - 1.35 / width_in, 1 - 1.05 / height_in)
    axes = card.add_axes(box)
    axes.set_title(title, x=-0.45 / (width_in - 1.35))
    axes.set_title(note, loc="right", color=MUTED, size=7.5, weight="normal")
    return axes


def _text(card: SubFigure, lines: Sequence[str]) -> None:
    for place, line in enumerate(lines):
        depth = len(line) - len(line.lstrip("#"))
        y = 1 - (place + 0.6) / len(lines)
        size, weight = {0: (10, "normal"), 1: (18, "bold"), 2: (14, "bold")}[depth]
        card.text(0.01, y, line.lstrip("# "), size=size, weight=weight, va="center")


def _alarms(axes: Axes, states: Mapping[str, str]) -> None:
    axes.axis("off")
    per_row = -(-len(states) // 2)
    for place, (name, state) in enumerate(states.items()):
        x, y = (place % per_row + 0.5) / per_row, 0.35 - 1.15 * (place // per_row)
        box = {"boxstyle": "round", "facecolor": f"{STATES[state]}1f", "edgecolor": STATES[state]}
        axes.text(x, y, f"{_words(name)}: {state}", ha="center", va="center", bbox=box)


def _graph(card: SubFigure, widget: Widget, chart: Chart) -> None:
    properties = widget["properties"]
    lines = chart.lines(properties["metrics"])
    sources = sorted({STAND_INS[line.namespace] for line in lines if line.namespace in STAND_INS})
    visible = [line for line in lines if line.options.get("visible", True)]
    curves = [line for line in visible if not line.is_empty]
    missing = ", ".join(line.label for line in visible if line.is_empty)
    note = "from " + ", ".join(sources) if curves and sources else ""
    axes = _axes(card, widget, properties["title"], note)
    if not curves:
        only_aws = any(line.is_only_in_aws for line in lines)
        reason = "only AWS has these metrics" if only_aws else "nothing of the kind in this run"
        axes.axis("off")
        axes.text(0.5, 0.5, f"{reason}\n{missing}", color=MUTED, ha="center", va="center")
        return
    _plot(axes, curves, properties, chart)
    _annotate(axes, properties.get("annotations", {}).get("horizontal", ()))
    if missing:
        axes.plot([], [], linestyle="none", label=f"none: {missing}")
    axes.figure.legend(loc="lower center", ncols=4, fontsize=7.5, handlelength=1.2)


def _plot(axes: Axes, lines: Sequence[Line], properties: Mapping[str, Any], chart: Chart) -> None:
    times: Any = [datetime.fromtimestamp(time_s).astimezone() for time_s in chart.times_s]
    colors: Any = [line.options.get("color") for line in lines]
    right = axes.twinx() if any(line.options.get("yAxis") == "right" for line in lines) else None
    if properties["stacked"]:
        values = [np.nan_to_num(line.values) for line in lines]
        axes.stackplot(times, *values, labels=[x.label for x in lines], colors=colors, alpha=0.65)
    else:
        for line, color in zip(lines, colors, strict=True):
            on_right = right and line.options.get("yAxis") == "right"
            label = f"{line.label} (right)" if on_right else line.label
            target = right if right and on_right else axes
            target.plot(times, line.values, color=color, marker="o", label=label)
    for side, scale in {"left": axes, "right": right}.items():
        if scale:
            limits = properties["yAxis"].get(side, {})
            scale.set_ylim(0, limits.get("max", 1.12 * scale.dataLim.y1 or 1.0))
            scale.set_ylabel(limits.get("label", ""))
    axes.set_xlim(times[0], times[-1])
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=6))  # type: ignore[no-untyped-call]
    formatter = DateFormatter("%H:%M:%S", tz=times[0].tzinfo)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def _annotate(axes: Axes, thresholds: Sequence[Mapping[str, Any]]) -> None:
    for threshold in thresholds:
        value, color, label = (threshold[key] for key in ("value", "color", "label"))
        top = axes.get_ylim()[1]
        if value > FAR * top:
            y, label = 0.93 * top, f"{label}: {value:,} ↑"
        else:
            y = value
            axes.set_ylim(0, max(top, 1.15 * value))
            axes.axhline(value, color=color, linewidth=1, linestyle="--")
        axes.text(0.99, y, label, color=color, ha="right", transform=axes.get_yaxis_transform())


def _words(logical_id: str) -> str:
    """`StaleDeliveryAlarm` as `stale delivery`."""
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in logical_id)
    return spaced.removesuffix(" alarm").strip()
