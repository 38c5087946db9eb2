"""A plan's day, drawn: requests, environments, cold starts."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from feedops.errors import OperationError
from feedops.plan.plan import Plan

WIDTH_IN, HEIGHT_IN, DPI = 8.0, 6.0, 110
COLOURS = ("#2563eb", "#ea580c", "#059669")
POINTS = 1_440
HOUR_S = 3_600.0


def check(path: Path) -> None:
    """Raises OperationError for another kind of file than a PNG."""
    if path.suffix.lower() != ".png":
        raise OperationError(f"{path}: the picture is a PNG; name a .png file")


def draw(plan: Plan, path: Path) -> None:
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, layout="constrained")
    rates, environments, starts = figure.subplots(3, 1, sharex=True)
    traffic = plan.workload.traffic
    group = max(1, len(traffic.rates_per_s) // POINTS)
    first = np.arange(0, len(traffic.rates_per_s), group)
    hours = first * traffic.step_s / HOUR_S
    rates.plot(hours, np.maximum.reduceat(traffic.rates_per_s, first), color=COLOURS[0])
    for (name, course), colour in zip(plan.courses.items(), COLOURS, strict=False):
        times = np.arange(len(course.environments)) * course.step_s / HOUR_S
        environments.plot(times, course.environments, color=colour, label=name)
        starts.plot(times, course.cold_starts, color=colour)
        starts.set_ylabel(f"cold starts in {course.step_s:g} s")
    rates.set(ylabel="requests/s", ylim=(0, None))
    environments.set(ylabel="environments", ylim=(0, None))
    starts.set(xlabel="hours", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=len(COLOURS), frameon=False)
    for axes in (rates, environments, starts):
        axes.grid(visible=True, alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
