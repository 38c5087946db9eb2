"""The plots of a run. Figures without pyplot: no display, no global state."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedmodel.demo.baselines import Evaluation
from feedmodel.training.evaluation import Reliability
from feedmodel.training.fit import Epoch, best_of

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, GREEN = "#2563eb", "#ea580c", "#059669"
BAR_COLOURS = {"model": BLUE, "known best": GREEN}
OTHER_BAR = "#cbd2d9"
SIZE_IN = (7.2, 4.5)
DPI = 150


def draw(epochs: list[Epoch], evaluation: Evaluation) -> dict[str, Figure]:
    return {
        "learning_curve": learning_curve(epochs),
        "calibration": calibration(evaluation.reliability),
        "ranking_quality": ranking_quality(evaluation),
    }


def learning_curve(epochs: list[Epoch]) -> Figure:
    figure, axes = _figure("Learning curve")
    numbers = [epoch.number for epoch in epochs]
    best = best_of(epochs)
    style: dict[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 5}
    axes.plot(
        numbers,
        [e.train_loss for e in epochs],
        color=MUTED,
        label="training, with dropout",
        **style,
    )
    axes.plot(numbers, [e.validation_loss for e in epochs], color=BLUE, label="validation", **style)
    axes.plot(
        best.number,
        best.validation_loss,
        marker="o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=ORANGE,
        markeredgewidth=2,
        linestyle="none",
        label=f"best: epoch {best.number}, loss {best.validation_loss:.4f}",
    )
    axes.set(xlabel="epoch", ylabel="binary cross-entropy (nats)", xticks=numbers)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def calibration(reliability: Reliability) -> Figure:
    figure, axes = _figure(f"Calibration on the test window (error {reliability.error:.4f})")
    end = 1.05 * max(reliability.predicted.max(), reliability.observed.max())
    axes.plot([0, end], [0, end], color=MUTED, linewidth=1.5, linestyle="--", label="perfect")
    axes.plot(
        reliability.predicted,
        reliability.observed,
        color=BLUE,
        linewidth=2,
        marker="o",
        markersize=6,
        label=f"model, {len(reliability.rows)} bins of {int(reliability.rows.mean()):,} rows",
    )
    axes.set(xlabel="predicted probability", ylabel="observed click rate", xlim=(0, end))
    axes.set_ylim(0, end)
    axes.legend(frameon=False, labelcolor=INK, loc="upper left")
    return figure


def ranking_quality(evaluation: Evaluation) -> Figure:
    subtitle = (
        f"Of the way in NDCG@10 to the known best: {evaluation.way_from_popularity:.0%} from "
        f"popularity, {evaluation.way_from_click_rate:.0%} from the click rate"
    )
    figure, axes = _figure(f"Ranking quality on the test window\n{subtitle}")
    rankings = evaluation.rankings()
    bars = (
        ("NDCG@10", "ndcg_at_10", 0.0),
        ("precision@10", "precision_at_10", len(rankings) + 0.8),
    )
    ticks = []
    for title, metric, start in bars:
        for at, (name, quality) in enumerate(rankings.items()):
            _bar(axes, start + at, getattr(quality, metric), BAR_COLOURS.get(name, OTHER_BAR))
            ticks.append((start + at, name.replace(" ", "\n")))
        middle = start + (len(rankings) - 1) / 2
        axes.text(middle, 0.95, title, ha="center", color=INK, transform=axes.get_xaxis_transform())
    axes.set_xticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=8.5)
    axes.set_ylim(0, 1.2 * evaluation.known_best.ndcg_at_10)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    return figure


def _bar(axes: Axes, at: float, value: float, colour: str) -> None:
    axes.bar(at, value, width=0.75, color=colour)
    axes.annotate(
        f"{value:.3f}",
        (at, value),
        textcoords="offset points",
        xytext=(0, 4),
        ha="center",
        color=INK,
        fontsize=9,
    )


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=12)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    return figure, axes
