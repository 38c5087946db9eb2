"""A load over time: answers a second by outcome, and their latency."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from feedbench.load.analysis import Request, per_second
from feedbench.plots import BLUE, DPI, GRID, INK, MUTED, ORANGE, RED, WIDTH_IN


def draw(requests: list[Request], path: Path) -> None:
    figure = Figure(figsize=(WIDTH_IN, 5.0), layout="constrained", facecolor="white")
    rates, latencies = figure.subplots(2, 1, sharex=True)
    outcomes = {
        "as expected": (BLUE, [r for r in requests if r.is_good]),
        "429": (ORANGE, [r for r in requests if r.is_throttled]),
        "other error": (RED, [r for r in requests if not r.is_good and not r.is_throttled]),
    }
    for name, (colour, chosen) in outcomes.items():
        counts = per_second(chosen)
        rates.plot(np.arange(len(counts)), counts, color=colour, linewidth=2, label=name)
    ends = np.array([r.sent_s + r.taken_ms / 1_000 for r in requests if r.is_good])
    taken = np.array([r.taken_ms for r in requests if r.is_good])
    seconds = np.unique(ends.astype(int))
    for percent, colour in ((50, BLUE), (99, ORANGE)):
        line = [np.percentile(taken[ends.astype(int) == second], percent) for second in seconds]
        latencies.plot(seconds, line, color=colour, linewidth=2, label=f"p{percent}")
    starts = {r.phase: r.sent_s for r in reversed(requests)}
    for axes in (rates, latencies):
        for name, at in starts.items():
            axes.axvline(at, color=MUTED, linewidth=0.8, linestyle="--")
            if axes is rates:
                axes.annotate(
                    name, (at, 1.01), xycoords=("data", "axes fraction"), fontsize=8, color=MUTED
                )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GRID)
        axes.legend(frameon=False, labelcolor=INK, fontsize=8, loc="upper left")
    rates.set_ylabel("answers/s")
    latencies.set(yscale="log", ylabel="milliseconds (log)", xlabel="seconds")
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
