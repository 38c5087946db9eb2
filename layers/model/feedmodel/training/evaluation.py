"""Ranking quality and calibration of a model's scores.

Rankings are compared slate by slate, over the slates with at least one click: without one, every
order is as good as any other. Equal scores are in a random order, the same for every ranking.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import BoolArray, IntArray

TOP = 10
BINS = 20
TIES_SEED = 0
MIN_PROBABILITY = 1e-7  # a float32 sigmoid may round to 0 or 1, whose logarithm is infinite

Clicks = BoolArray
Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Quality:
    """The last two are of probabilities; other scores have none."""

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


class Slates:
    """Clicks by slate, for evaluating any number of scores. `slate` and `clicked` are (rows,); rows
    of equal `slate` were shown together."""

    def __init__(self, slate: IntArray, clicked: Clicks) -> None:
        _, self._slate = np.unique(slate, return_inverse=True)
        self._clicked = clicked
        self._sizes = np.bincount(self._slate)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._clicks = np.bincount(self._slate, weights=clicked).astype(np.int64)
        self.with_click = self._clicks > 0
        self.noise = np.random.default_rng(TIES_SEED).random(len(clicked))

    def quality(
        self, score: Scores, *, are_probabilities: bool = False, last: BoolArray | None = None
    ) -> Quality:
        """Of `score`, (rows,). Rows in `last` are ranked behind all others of their slate."""
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

    def _positions(self, score: Scores, last: BoolArray) -> IntArray:
        """Each row's position in its slate, from 0 for the best score."""
        order = np.lexsort((self.noise, -score, last, self._slate))
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order)) - self._starts[self._slate[order]]
        return position

    def _ndcg(self, position: IntArray) -> float:
        """Gain 1 a click, discount log2(1 + rank) with ranks from 1; relative to the ideal order.

        The formula is that of Järvelin and Kekäläinen (2002).
        """
        discount = np.where(position < TOP, 1.0 / np.log2(position + 2), 0.0)
        gain = np.bincount(self._slate, weights=discount * self._clicked)
        ideal = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(TOP) + 2))))
        possible = ideal[np.minimum(self._clicks, TOP)]
        return float((gain[self.with_click] / possible[self.with_click]).mean())

    def _precision(self, position: IntArray) -> float:
        """Clicks among the first ten ranks, over ten or the slate's size if that is smaller."""
        hits = np.bincount(self._slate, weights=self._clicked & (position < TOP))
        return float((hits / np.minimum(self._sizes, TOP))[self.with_click].mean())


def auc(clicked: Clicks, score: Scores) -> float:
    """The share of pairs of a clicked and an unclicked row in which the clicked one has the higher
    score; equal scores count half.

    NaN where all rows are clicked or none is.
    """
    below = np.sort(score[~clicked])
    above = score[clicked]
    if not len(below) or not len(above):
        return float("nan")
    wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(wins.mean() / 2 / len(below))


def log_loss(clicked: Clicks, probability: Scores) -> float:
    """Mean binary cross-entropy in nats."""
    of_outcome = np.where(clicked, probability, 1.0 - probability.astype(np.float64))
    return float(-np.log(np.maximum(of_outcome, MIN_PROBABILITY)).mean())


def reliability(clicked: Clicks, probability: Scores) -> Reliability:
    bins = np.array_split(np.argsort(probability, kind="stable"), min(BINS, len(clicked)))
    return Reliability(
        predicted=np.array([probability[rows].mean(dtype=np.float64) for rows in bins]),
        observed=np.array([clicked[rows].mean() for rows in bins]),
        rows=np.array([len(rows) for rows in bins]),
    )
