"""The picture of a dashboard: CloudWatch's grid of 24 columns, a card for each widget.

Figures without pyplot: no display, no global state.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from feedops.cloudwatch.metrics import STAND_INS, Chart, Line

Widget = Mapping[str, Any]

COLUMNS = 24
MARGIN = 0.3  # around the grid, in its cells
UNIT_IN = (0.68, 0.44)  # width and height of a cell, in inches
GAP = (0.11, 0.13)  # of a card to its cells' edge
PAGE, CARD, EDGE = "#f2f4f7", "#ffffff", "#d5dae1"
INK, MUTED, FAINT, GRID = "#1f2933", "#7b8794", "#9aa5b1", "#e4e7eb"
PALETTE = ("#2563eb", "#ea580c", "#059669", "#7c3aed", "#dc2626", "#7b8794")
STATES = {"OK": "#059669", "ALARM": "#dc2626", "no data here": FAINT}
SPARSE = 0.5  # a line with more gaps than this is drawn with its points
FAR = 2.5  # an annotation this many times above the data is named, not drawn
LEGEND_CHARACTERS = 11  # that fit a cell's width


def draw(widgets: Sequence[Widget], chart: Chart, alarms: Mapping[str, str]) -> Figure:
    """`alarms`: the state of each, by the last part of its ARN in the widget."""
    rows = max(widget["y"] + widget["height"] for widget in widgets) + 2 * MARGIN
    size = (UNIT_IN[0] * (COLUMNS + 2 * MARGIN), UNIT_IN[1] * rows)
    page = _Page(Figure(figsize=size, facecolor=PAGE), rows)
    draws: Mapping[str, Callable[[Widget], None]] = {
        "text": page.text,
        "alarm": lambda widget: page.alarms(widget, alarms, chart.period_s),
        "metric": lambda widget: page.graph(widget, chart),
    }
    for widget in widgets:
        draws[widget["type"]](widget)
    return page.figure


def of_aws(namespace: str) -> bool:
    """A service's own, or made by a metric filter from lines that the platform writes."""
    return "/" in namespace


class _Page:
    def __init__(self, figure: Figure, rows: float) -> None:
        self.figure = figure
        self._rows = rows

    def text(self, widget: Widget) -> None:
        axes = self._axes(widget, left=GAP[0])
        axes.set(xlim=(0, 1), ylim=(0, widget["height"]))
        axes.axis("off")
        y = widget["height"] - 0.55
        for line in widget["properties"]["markdown"].splitlines():
            depth = len(line) - len(line.lstrip("#"))
            axes.text(
                0,
                y,
                line.lstrip("# "),
                size={0: 10, 1: 20, 2: 14}[depth],
                weight="bold" if depth else "normal",
                va="center",
                color=INK if depth else MUTED,
            )
            y -= 0.95

    def alarms(self, widget: Widget, states: Mapping[str, str], period_s: float) -> None:
        note = f"at the end of a local run, {period_s:g} s a period"
        self._card(widget, widget["properties"]["title"], note)
        axes = self._axes(widget, left=0.3, bottom=0.4, right=0.3, top=0.85)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.axis("off")
        names = [arn.rpartition(":")[2] for arn in widget["properties"]["alarms"]]
        per_row = -(-len(names) // 2)
        for place, name in enumerate(names):
            color = STATES[states[name]]
            x, y = (place % per_row) / per_row, 0.54 - 0.54 * (place // per_row)
            axes.add_patch(
                FancyBboxPatch(
                    (x + 0.004, y),
                    1 / per_row - 0.012,
                    0.44,
                    facecolor=f"{color}1f",
                    edgecolor=color,
                    boxstyle="round,pad=0,rounding_size=0.005",
                    mutation_aspect=9,
                )
            )
            middle = (x + 0.5 / per_row - 0.002, y + 0.21)
            axes.text(
                *middle,
                f"{_words(name)}: {states[name]}",
                size=8.5,
                ha="center",
                va="center",
                color=INK,
            )

    def graph(self, widget: Widget, chart: Chart) -> None:
        properties = widget["properties"]
        lines = [line for line in chart.lines(properties["metrics"]) if line.visible]
        drawn = [line for line in lines if not np.isnan(line.values).all()]
        missing = ", ".join(line.label for line in lines if np.isnan(line.values).all())
        namespaces = {metric[0] for metric in properties["metrics"] if isinstance(metric[0], str)}
        if not drawn:
            self._card(widget, properties["title"])
            self._empty(widget, missing, only_aws=any(map(of_aws, namespaces)))
            return
        sources = [STAND_INS[name] for name in sorted(namespaces & set(STAND_INS))]
        self._card(widget, properties["title"], "from " + ", ".join(sources) if sources else "")
        has_right = any(line.right for line in drawn)
        axes = self._axes(widget, left=1.15, bottom=1.25, right=1.1 if has_right else 0.45, top=1.0)
        right = axes.twinx() if has_right else None
        _plot(axes, right, drawn, chart, stacked=properties["stacked"])
        _style(axes, right, properties["yAxis"], chart)
        _annotate(axes, properties.get("annotations", {}).get("horizontal", ()))
        _legend(axes, right, missing, widget["width"])

    def _axes(
        self,
        widget: Widget,
        *,
        left: float = 0,
        bottom: float = 0,
        right: float = 0,
        top: float = 0,
    ) -> Axes:
        """Insets from the widget's edges, in cells."""
        columns = COLUMNS + 2 * MARGIN
        x = widget["x"] + MARGIN + left
        y = self._rows - (widget["y"] + widget["height"] + MARGIN - bottom)  # from below
        width, height = widget["width"] - left - right, widget["height"] - bottom - top
        box = (x / columns, y / self._rows, width / columns, height / self._rows)
        return self.figure.add_axes(box)

    def _card(self, widget: Widget, title: str, note: str = "") -> None:
        axes = self._axes(widget, left=GAP[0], bottom=GAP[1], right=GAP[0], top=GAP[1])
        axes.set(xlim=(0, 1), ylim=(0, 1), facecolor=CARD, xticks=(), yticks=())
        for spine in axes.spines.values():
            spine.set_color(EDGE)
        top, indent = 1 - 0.42 / widget["height"], 0.3 / widget["width"]
        axes.text(indent, top, title, color=INK, size=11, weight="bold", va="center")
        axes.text(1 - indent, top, note, color=FAINT, size=7.5, va="center", ha="right")

    def _empty(self, widget: Widget, missing: str, *, only_aws: bool) -> None:
        reason = "only AWS has these metrics" if only_aws else "nothing of the kind in this run"
        axes = self._axes(widget, left=0.4, bottom=0.4, right=0.4, top=1.0)
        axes.axis("off")
        axes.text(0.5, 0.58, reason, size=11, color=MUTED, ha="center", va="center")
        axes.text(0.5, 0.4, missing, size=8.5, color=FAINT, ha="center", va="center")


def _plot(
    axes: Axes, right: Axes | None, lines: Sequence[Line], chart: Chart, *, stacked: bool
) -> None:
    # matplotlib's stub asks for numbers where it takes times as well
    times: Any = [datetime.fromtimestamp(at) for at in chart.times_s]  # noqa: DTZ006 the reader's own
    colors = [line.color or PALETTE[i % len(PALETTE)] for i, line in enumerate(lines)]
    if stacked:
        values = [np.nan_to_num(line.values) for line in lines]
        labels = [line.label for line in lines]
        axes.stackplot(times, *values, labels=labels, colors=colors, alpha=0.65, linewidth=0)
        return
    for line, color in zip(lines, colors, strict=True):
        sparse = np.isnan(line.values).mean() > SPARSE
        label = f"{line.label} (right)" if line.right else line.label
        (right if right and line.right else axes).plot(
            times,
            line.values,
            color=color,
            linewidth=1.6,
            marker="o" if sparse else "",
            markersize=5,
            label=label,
        )


def _style(axes: Axes, right: Axes | None, y_axis: Mapping[str, Any], chart: Chart) -> None:
    for side, target in (("left", axes), ("right", right)):
        if target is None:
            continue
        limits = y_axis.get(side, {})
        highest = target.dataLim.y1
        target.set_ylim(0, limits.get("max", 1.12 * highest if highest > 0 else 1.0))
        target.set_ylabel(limits.get("label", ""), size=8.5, color=MUTED)
        target.tick_params(labelsize=8, colors=MUTED, length=0)
        target.spines[:].set_visible(False)
        target.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    ends: Any = [datetime.fromtimestamp(at) for at in chart.times_s[[0, -1]]]  # noqa: DTZ006 as above
    axes.set_xlim(*ends)
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=6))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]


def _annotate(axes: Axes, marks: Sequence[Mapping[str, Any]]) -> None:
    for mark in marks:
        value, color = mark["value"], mark["color"]
        top = axes.get_ylim()[1]
        style: dict[str, Any] = {"size": 7.5, "color": color, "ha": "right"}
        if value > FAR * top:
            axes.text(
                0.99,
                0.98,
                f"{mark['label']}: {value:,} ↑",
                transform=axes.transAxes,
                va="top",
                **style,
            )
            continue
        axes.set_ylim(0, max(top, 1.15 * value))
        axes.axhline(value, color=color, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            mark["label"],
            (0.99, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            va="bottom",
            **style,
        )


def _legend(axes: Axes, right: Axes | None, missing: str, width: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if right is not None:
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    if missing:
        handles.append(Line2D([], [], linestyle="none"))
        labels.append(f"none: {missing}")
    crowded = sum(len(label) + 5 for label in labels) > LEGEND_CHARACTERS * width
    axes.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=2 if crowded else 4,
        frameon=False,
        fontsize=7 if crowded else 8,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.4,
        borderaxespad=0,
        labelspacing=0.3,
    )


def _words(logical_id: str) -> str:
    """`StaleDeliveryAlarm` as `stale delivery`."""
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in logical_id)
    return spaced.removesuffix(" alarm").strip()
