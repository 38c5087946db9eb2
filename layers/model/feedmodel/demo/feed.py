"""A synthetic feed with a known engagement probability.

A user opens the feed on a device and is shown a slate of distinct items; each shown item is one
interaction, clicked or not. The click is drawn from a probability that is stored with it, so an
evaluation can say how far a model is from the best that anyone could do. What a model has to
learn: an item's quality, how fast it ages (faster on weekdays), how well it fits the user's
preferred category, how easily the user clicks, and the effect of hour, weekday and device.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import IntArray
from feedrank.features.expressions import DAY_S, HOUR_S, hour, is_weekend, weekday

Reals = NDArray[np.float64]

START_S = 1_788_134_400  # Monday 2026-08-31, 00:00 UTC
DAYS = 56
BACKLOG_DAYS = 56  # half of the items are older than the first day, by at most this
CATEGORIES = 10
DEVICES = np.array(["mobile", "desktop", "tablet"])
DEVICE_SHARES = (0.6, 0.3, 0.1)
DRAWS = 20  # a slate; an item drawn twice is shown once
MIN_MEAN_SHOWN = 10  # items a slate, in the smallest catalogue of MIN_ITEMS

ACTIVITY_TAIL = 1.3  # Pareto exponents: few users and few items account for most of the feed
EXPOSURE_TAIL = 1.6
MAX_WEIGHT = 50.0  # times the lightest user or item
PREFERRED_SHARE = 0.45  # of the draws come from the user's preferred category
USUAL_DEVICE_SHARE = 0.75
HOUR_ACTIVITY = np.array(
    [4, 2, 1, 1, 1, 2, 5, 9, 11, 8, 7, 8, 12, 11, 8, 7, 8, 10, 13, 15, 17, 16, 12, 8], dtype=float
)
WEEKDAY_ACTIVITY = np.array([1.0, 0.95, 0.95, 1.0, 1.05, 1.3, 1.35])


@dataclass(frozen=True, slots=True)
class Feed:
    """Interactions in the order of time; the rows of a slate have one time and are adjacent.

    Ids count from 1. `dwell_ms` is 0 without a click; whole milliseconds, so that sums are exact.
    `probability` is for evaluation only: no feature may come from it.
    """

    slate: IntArray  # (interactions,), as all below
    user_id: IntArray
    item_id: IntArray
    time_s: IntArray
    device: NDArray[np.str_]
    clicked: NDArray[np.bool_]
    dwell_ms: IntArray
    probability: Reals
    created_s: IntArray  # (items,): when item n was created, at n - 1

    @property
    def end_s(self) -> int:
        """The first second after the last interaction."""
        return int(self.time_s[-1]) + 1


@dataclass(frozen=True, slots=True)
class _Users:
    activity: Reals  # (users,), as all below
    preferred: IntArray
    device: IntArray
    eagerness: Reals
    patience: Reals
    loyalty: Reals


@dataclass(frozen=True, slots=True)
class _Items:
    category: IntArray  # (items,), as all below; sorted by category, then creation
    created_s: IntArray
    quality: Reals
    exposure: Reals
    item_id: IntArray


@dataclass(frozen=True, slots=True)
class _Slates:
    user: IntArray  # (slates,), as all below
    time_s: IntArray
    device: IntArray


def generate_feed(users: int, items: int, interactions: int, seed: int) -> Feed:
    """Draw a feed; the same arguments give the same feed.

    `items` must be at least MIN_ITEMS, or slates might be too short to reach `interactions`.
    """
    rng = np.random.default_rng(seed)
    crowd = _draw_users(rng, users)
    catalogue = _draw_items(rng, items)
    slates = _draw_slates(rng, crowd, interactions // MIN_MEAN_SHOWN + 1)
    slate, item = _fill_slates(rng, slates, crowd, catalogue, interactions)
    probability = _engagement(crowd, catalogue, slates, slate, item)
    clicked = rng.random(interactions) < probability
    dwell_ms = _draw_dwell(rng, crowd, catalogue, slates.user[slate], item)
    created_s = np.empty(items, dtype=np.int64)
    created_s[catalogue.item_id - 1] = catalogue.created_s
    return Feed(
        slate=np.cumsum(np.diff(slate, prepend=slate[0]) != 0),
        user_id=slates.user[slate] + 1,
        item_id=catalogue.item_id[item],
        time_s=slates.time_s[slate],
        device=DEVICES[slates.device[slate]],
        clicked=clicked,
        dwell_ms=np.where(clicked, dwell_ms, 0),
        probability=probability,
        created_s=created_s,
    )


def _draw_users(rng: np.random.Generator, users: int) -> _Users:
    taste = 1.0 / np.arange(2, CATEGORIES + 2)  # some categories are more popular than others
    return _Users(
        activity=_power_law(rng, ACTIVITY_TAIL, users),
        preferred=rng.choice(CATEGORIES, users, p=taste / taste.sum()),
        device=rng.choice(len(DEVICES), users, p=DEVICE_SHARES),
        eagerness=rng.normal(0.0, 0.5, users),
        patience=rng.normal(0.0, 0.3, users),
        loyalty=rng.uniform(1.0, 2.2, users),
    )


def _draw_items(rng: np.random.Generator, items: int) -> _Items:
    """Every category has the same number of items, half of them from before the first day."""
    category = np.arange(items) % CATEGORIES
    backlog = np.arange(items) // CATEGORIES % 2 == 0
    day = np.where(backlog, rng.uniform(-BACKLOG_DAYS, 0, items), rng.uniform(0, DAYS, items))
    created_s = START_S + (day * DAY_S).astype(np.int64)
    order = np.lexsort((created_s, category))
    quality = rng.normal(0.0, 1.0, items)
    return _Items(
        category=category[order],
        created_s=created_s[order],
        quality=quality,
        exposure=_power_law(rng, EXPOSURE_TAIL, items) * np.exp(0.2 * quality),
        item_id=rng.permutation(items) + 1,
    )


def _draw_slates(rng: np.random.Generator, crowd: _Users, slates: int) -> _Slates:
    user = rng.choice(len(crowd.activity), slates, p=crowd.activity / crowd.activity.sum())
    daily = np.tile(WEEKDAY_ACTIVITY, DAYS // len(WEEKDAY_ACTIVITY))
    day = rng.choice(DAYS, slates, p=daily / daily.sum())
    hour_of_day = rng.choice(24, slates, p=HOUR_ACTIVITY / HOUR_ACTIVITY.sum())
    any_device = rng.choice(len(DEVICES), slates, p=DEVICE_SHARES)
    is_usual = rng.random(slates) < USUAL_DEVICE_SHARE
    return _Slates(
        user=user,
        time_s=START_S + day * DAY_S + hour_of_day * HOUR_S + rng.integers(0, HOUR_S, slates),
        device=np.where(is_usual, crowd.device[user], any_device),
    )


def _fill_slates(
    rng: np.random.Generator, slates: _Slates, crowd: _Users, items: _Items, interactions: int
) -> tuple[IntArray, IntArray]:
    """Each interaction's slate and item, in the order of time; (interactions,) both.

    Items are drawn by exposure among those of a category that exist by then. As catalogue rows
    are sorted by category and creation, these are adjacent: a draw is a point in a range of the
    cumulative exposure.
    """
    shape = (len(slates.user), DRAWS)
    preferred = rng.random(shape) < PREFERRED_SHARE
    any_category = rng.integers(0, CATEGORIES, shape)
    category = np.where(preferred, crowd.preferred[slates.user][:, None], any_category)
    first = np.searchsorted(items.category, category)
    past_last = _existing(items, category, slates.time_s[:, None])
    cumulative = np.concatenate(([0.0], np.cumsum(items.exposure)))
    point = rng.uniform(cumulative[first], cumulative[past_last])
    item = np.clip(np.searchsorted(cumulative, point, side="right") - 1, first, past_last - 1)

    item.sort(axis=1)
    is_first = np.diff(item, axis=1, prepend=-1) != 0
    slate, draw = np.nonzero(is_first)
    slate, draw = slate[:interactions], draw[:interactions]
    order = np.lexsort((rng.random(interactions), slate, slates.time_s[slate]))
    return slate[order], item[slate, draw][order]


def _existing(items: _Items, category: IntArray, time_s: IntArray) -> IntArray:
    """The position after the last item of the category that exists at the time."""
    span_s = int(items.created_s.max()) + 1
    moments = items.category * span_s + items.created_s
    return np.searchsorted(moments, category * span_s + np.minimum(time_s, span_s - 1), "right")


def _engagement(
    crowd: _Users, items: _Items, slates: _Slates, slate: IntArray, item: IntArray
) -> Reals:
    """The probability of a click, (interactions,)."""
    user, time_s = slates.user[slate], slates.time_s[slate]
    on_mobile = slates.device[slate] == 0
    weekend = is_weekend({}, time_s)
    age_days = (time_s - items.created_s[item]) / DAY_S
    evening = np.cos((hour({}, time_s) - 20) * (2 * np.pi / 24))
    logit = (
        -2.3
        + np.where(on_mobile, 0.8, 1.1) * items.quality[item]
        + np.where(_fits(crowd, items, user, item), crowd.loyalty[user], 0.0)
        - np.where(weekend, 0.4, 0.7) * np.log1p(age_days / 3)
        + crowd.eagerness[user]
        + 0.3 * evening
        + np.where(weekend, 0.25, 0.0)
        - np.where(weekday({}, time_s) == 0, 0.15, 0.0)
        + np.where(on_mobile, 0.15, 0.0)
    )
    probability: Reals = 1.0 / (1.0 + np.exp(-logit))
    return probability


def _draw_dwell(
    rng: np.random.Generator, crowd: _Users, items: _Items, user: IntArray, item: IntArray
) -> IntArray:
    """How long a clicked item is looked at, in ms: log-normal, with a median of 20 s on average."""
    fitting = np.where(_fits(crowd, items, user, item), 0.3, 0.0)
    log_s = np.log(20.0) + crowd.patience[user] + 0.35 * items.quality[item] + fitting
    dwell_ms: Reals = 1_000 * rng.lognormal(log_s, 0.5)
    return dwell_ms.astype(np.int64)


def _fits(crowd: _Users, items: _Items, user: IntArray, item: IntArray) -> NDArray[np.bool_]:
    fits: NDArray[np.bool_] = items.category[item] == crowd.preferred[user]
    return fits


def _power_law(rng: np.random.Generator, tail: float, count: int) -> Reals:
    return np.minimum(rng.pareto(tail, count) + 1.0, MAX_WEIGHT)
