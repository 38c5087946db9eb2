"""The demo's features: columns for training, which can't see the future, and tables for serving.

Training: each row's aggregates come from interactions strictly earlier than the row; a slate's rows
have one time and don't see each other. Serving: the same aggregates over all interactions before
one time, `as_of_s`; the demo's is the end of the feed, so serving continues where the data ends.
Both use the same formulas: a training row at time t and the tables as of t agree to the last bit.

The priors of smoothed rates and means come from the warm-up, the first part of the feed, which is
never trained on: they see no future either.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.demo.feed import DEVICES, Feed
from feedmodel.demo.formulas import age_column, item_columns, pair_columns, user_columns
from feedmodel.demo.specs import Priors, demo_features
from feedmodel.publish.tables import TableName
from feedrank.domain import FloatArray, IntArray
from feedrank.features.expressions import DAY_S
from feedrank.features.matrix import context_column


def priors(feed: Feed, until_s: int) -> Priors:
    """From the interactions before `until_s`, the end of the warm-up."""
    past = feed.time_s < until_s
    rows, clicks = max(int(past.sum()), 1), max(int(feed.clicked[past].sum()), 1)
    devices = [(feed.device[past] == device).sum() for device in DEVICES]
    return Priors(
        ctr=clicks / rows,
        dwell_s=float(feed.dwell_ms[past].sum()) / 1_000 / clicks,
        device=str(DEVICES[np.argmax(devices)]),
        age_days=float(_age_s(feed)[past].sum()) / DAY_S / rows,
    )


def training_columns(feed: Feed, prior: Priors) -> dict[str, FloatArray]:
    """All 15 features of each interaction by name, (interactions,) float32."""
    ones = np.ones(len(feed.time_s), dtype=np.int64)
    by_user = _Past(feed.user_id, feed.time_s)
    by_item = _Past(feed.item_id, feed.time_s)
    by_pair = _Past(_pair_keys(feed), feed.time_s)
    return (
        user_columns(
            by_user.total(ones),
            by_user.total(feed.clicked),
            by_user.total(feed.dwell_ms),
            by_user.total(_opens_a_day(feed)),
            prior,
        )
        | item_columns(
            by_item.total(ones), by_item.total(feed.clicked), by_item.total(feed.dwell_ms), prior
        )
        | age_column(_age_s(feed))
        | pair_columns(by_pair.total(ones))
        | _context_columns({"device": feed.device}, feed.time_s, prior)
    )


def feature_tables(feed: Feed, as_of_s: int, prior: Priors) -> dict[TableName, pd.DataFrame]:
    """What serving looks up: the aggregates over all interactions before `as_of_s`, by id.

    `users` and `pairs` have a row for each one so far, `items` one for each that exists, shown or
    not.
    """
    past = feed.time_s < as_of_s
    clicked, dwell_ms = feed.clicked[past], feed.dwell_ms[past]
    user_id, user = np.unique(feed.user_id[past], return_inverse=True)
    users = user_columns(
        _sums(user, len(user_id)),
        _sums(user, len(user_id), clicked),
        _sums(user, len(user_id), dwell_ms),
        _sums(user, len(user_id), _opens_a_day(feed)[past]),
        prior,
    )
    item_id = np.flatnonzero(feed.created_s < as_of_s) + 1
    item = np.searchsorted(item_id, feed.item_id[past])
    items = item_columns(
        _sums(item, len(item_id)),
        _sums(item, len(item_id), clicked),
        _sums(item, len(item_id), dwell_ms),
        prior,
    ) | age_column(as_of_s - feed.created_s[item_id - 1])
    pair, counts = np.unique(_pair_keys(feed)[past], return_counts=True)
    pair_user, pair_item = np.divmod(pair, len(feed.created_s) + 1)
    pairs = pair_columns(counts)
    return {
        "users": pd.DataFrame({"user_id": user_id, **users}),
        "items": pd.DataFrame({"item_id": item_id, **items}),
        "pairs": pd.DataFrame({"user_id": pair_user, "item_id": pair_item, **pairs}),
    }


class _Past:
    """Sums over the rows with the same key and a strictly earlier time."""

    def __init__(self, key: IntArray, time_s: IntArray) -> None:
        self._order = np.lexsort((time_s, key))
        key, time_s = key[self._order], time_s[self._order]
        new_key = np.diff(key, prepend=key[0] - 1) != 0
        new_moment = new_key | (np.diff(time_s, prepend=time_s[0]) != 0)
        self._first_of_key = _latest(new_key)
        self._first_of_moment = _latest(new_moment)

    def total(self, values: NDArray[np.integer[Any] | np.bool_]) -> IntArray:
        """(rows,); of whole numbers, so that no rounding leaks one row's value into another."""
        before = np.concatenate(([0], np.cumsum(values[self._order], dtype=np.int64)))
        totals = np.empty(len(values), dtype=np.int64)
        totals[self._order] = before[self._first_of_moment] - before[self._first_of_key]
        return totals


def _latest(starts: NDArray[np.bool_]) -> IntArray:
    """For each position, the last one up to it that is a start."""
    return np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))


def _sums(
    group: IntArray, groups: int, values: NDArray[np.integer[Any] | np.bool_] | None = None
) -> IntArray:
    """(groups,); float64 holds whole numbers up to 2**53 exactly."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.int64)


def _age_s(feed: Feed) -> IntArray:
    """Of the item, in seconds, at each interaction."""
    return feed.time_s - feed.created_s[feed.item_id - 1]


def _pair_keys(feed: Feed) -> IntArray:
    return feed.user_id * (len(feed.created_s) + 1) + feed.item_id


def _opens_a_day(feed: Feed) -> NDArray[np.bool_]:
    """Whether the row is its user's first of that day (UTC); the feed is in the order of time."""
    day = feed.time_s // DAY_S
    _, first = np.unique(feed.user_id * (day.max() + 1) + day, return_index=True)
    opens = np.zeros(len(day), dtype=np.bool_)
    opens[first] = True
    return opens


def _context_columns(
    context: Mapping[str, Any], time_s: IntArray, prior: Priors
) -> dict[str, FloatArray]:
    """By the functions that serving uses, over columns."""
    return {
        feature.name: np.asarray(context_column(feature)(context, time_s), dtype=np.float32)
        for feature in demo_features(prior)
        if feature.source == "context"
    }
