"""How good scores are, beside what is to be had for nothing and the best that anyone could do.

Rankings are compared slate by slate, over the slates with at least one click: without one, every
order is as good as any other. Equal scores stand in a random order, the same for every ranking.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import IntArray

TOP = 10
BINS = 20
TIES_SEED = 0
SMALLEST_PROBABILITY = 1e-7  # a float32 sigmoid may round to 0 or 1, whose logarithm is infinite

Clicks = NDArray[np.bool_]
Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Quality:
    """The last two are for probabilities; a mere order has none."""

    ndcg_at_10: float
    precision_at_10: float
    auc: float
    log_loss: float | None = None  # nats
    calibration_error: float | None = None  # mean |predicted - observed| over BINS bins


@dataclass(frozen=True, slots=True)
class Reliability:
    """Rows sorted by predicted probability into BINS bins of equal size; each (bins,)."""

    predicted: NDArray[np.float64]  # mean probability of the bin
    observed: NDArray[np.float64]  # click rate of the bin
    rows: IntArray

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.rows))


@dataclass(frozen=True, slots=True)
class Evaluation:
    random: Quality
    popularity: Quality  # items by the clicks they had so far
    click_rate: Quality  # items by their smoothed click rate so far
    unknown_items: Quality  # the model, where some items are unknown
    unknown_users: Quality  # the model, where every user is unknown
    model: Quality
    known_best: Quality  # the very probability that the clicks were drawn from
    reliability: Reliability  # the model's
    interactions: int
    slates: int  # with at least one click

    def rankings(self) -> dict[str, Quality]:
        """From the one that knows nothing to the one that knows all."""
        return {
            "random": self.random,
            "popularity": self.popularity,
            "click rate": self.click_rate,
            "unknown items": self.unknown_items,
            "unknown users": self.unknown_users,
            "model": self.model,
            "known best": self.known_best,
        }

    @property
    def way_from_popularity(self) -> float:
        """How much of the way in NDCG@10 from popularity (0) to the known best (1)."""
        return self._way_from(self.popularity)

    @property
    def way_from_click_rate(self) -> float:
        """The same from the click rate, which is harder to beat."""
        return self._way_from(self.click_rate)

    def metrics(self) -> dict[str, float]:
        """As `test/<ranking>/<metric>`: MLflow groups by what stands before a slash."""
        flat = {
            f"test/{name.replace(' ', '_')}/{field.name}": value
            for name, quality in self.rankings().items()
            for field in fields(quality)
            if (value := getattr(quality, field.name)) is not None
        }
        return flat | {
            "test/way_to_known_best/from_popularity": self.way_from_popularity,
            "test/way_to_known_best/from_click_rate": self.way_from_click_rate,
        }

    def _way_from(self, floor: Quality) -> float:
        return (self.model.ndcg_at_10 - floor.ndcg_at_10) / (
            self.known_best.ndcg_at_10 - floor.ndcg_at_10
        )


@dataclass(frozen=True, slots=True)
class WithUnknown:
    """The model's scores, (interactions,) each, where ids are unknown, and which items were."""

    users: Scores
    items: Scores
    unknown_items: NDArray[np.bool_]


def evaluate(
    slate: IntArray,
    clicked: Clicks,
    *,
    model: Scores,
    with_unknown: WithUnknown,
    popularity: Scores,
    click_rate: Scores,
    probability: Scores,
) -> Evaluation:
    """All (interactions,); `slate` says which of them were shown together.

    Unknown items stand behind all others, as the demo's spec has it.
    """
    slates = _Slates(slate, clicked)
    return Evaluation(
        random=slates.quality(slates.noise),
        popularity=slates.quality(popularity),
        click_rate=slates.quality(click_rate),
        unknown_items=slates.quality(
            with_unknown.items, are_probabilities=True, last=with_unknown.unknown_items
        ),
        unknown_users=slates.quality(with_unknown.users, are_probabilities=True),
        model=slates.quality(model, are_probabilities=True),
        known_best=slates.quality(probability, are_probabilities=True),
        reliability=reliability(clicked, model),
        interactions=len(clicked),
        slates=int(slates.with_click.sum()),
    )


def auc(clicked: Clicks, score: Scores) -> float:
    """How often a clicked row outscores an unclicked one, a draw counting half.

    NaN where all rows are clicked or none is.
    """
    below = np.sort(score[~clicked])
    above = score[clicked]
    if not len(below) or not len(above):
        return float("nan")
    won = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(won.mean() / 2 / len(below))


def log_loss(clicked: Clicks, probability: Scores) -> float:
    """Mean binary cross-entropy in nats."""
    of_outcome = np.where(clicked, probability, 1.0 - probability.astype(np.float64))
    return float(-np.log(np.maximum(of_outcome, SMALLEST_PROBABILITY)).mean())


def reliability(clicked: Clicks, probability: Scores) -> Reliability:
    bins = np.array_split(np.argsort(probability, kind="stable"), min(BINS, len(clicked)))
    return Reliability(
        predicted=np.array([probability[rows].mean(dtype=np.float64) for rows in bins]),
        observed=np.array([clicked[rows].mean() for rows in bins]),
        rows=np.array([len(rows) for rows in bins]),
    )


class _Slates:
    """Clicks by slate, ready to be put in the order of any score."""

    def __init__(self, slate: IntArray, clicked: Clicks) -> None:
        _, self._slate = np.unique(slate, return_inverse=True)
        self._clicked = clicked
        self._sizes = np.bincount(self._slate)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._clicks = np.bincount(self._slate, weights=clicked).astype(np.int64)
        self.with_click = self._clicks > 0
        self.noise = np.random.default_rng(TIES_SEED).random(len(clicked))

    def quality(
        self,
        score: Scores,
        *,
        are_probabilities: bool = False,
        last: NDArray[np.bool_] | None = None,
    ) -> Quality:
        """`last` are the rows that stand behind all others of their slate, whatever their score."""
        position = self._positions(score, np.zeros(len(score), np.bool_) if last is None else last)
        return Quality(
            ndcg_at_10=self._ndcg(position),
            precision_at_10=self._precision(position),
            auc=auc(self._clicked, score),
            log_loss=log_loss(self._clicked, score) if are_probabilities else None,
            calibration_error=reliability(self._clicked, score).error
            if are_probabilities
            else None,
        )

    def _positions(self, score: Scores, last: NDArray[np.bool_]) -> IntArray:
        """Each row's place in its slate from the best score to the worst, from 0."""
        order = np.lexsort((self.noise, -score, last, self._slate))
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order)) - self._starts[self._slate[order]]
        return position

    def _ndcg(self, position: IntArray) -> float:
        """Gain 1 a click, discount log2(1 + place) with places from 1; relative to the ideal order.

        The formula is that of Järvelin and Kekäläinen (2002).
        """
        discount = np.where(position < TOP, 1.0 / np.log2(position + 2), 0.0)
        gained = np.bincount(self._slate, weights=discount * self._clicked)
        ideal = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(TOP) + 2))))
        possible = ideal[np.minimum(self._clicks, TOP)]
        return float((gained[self.with_click] / possible[self.with_click]).mean())

    def _precision(self, position: IntArray) -> float:
        """Clicks among the first ten places, over ten or the slate's size if that is less."""
        hits = np.bincount(self._slate, weights=self._clicked & (position < TOP))
        return float((hits / np.minimum(self._sizes, TOP))[self.with_click].mean())
