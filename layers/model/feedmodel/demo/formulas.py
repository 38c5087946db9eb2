"""The demo's features of users, items and pairs, from whole counts.

Training computes its columns by these, and so does the stream that keeps the rows of a live store
(`infra/streaming/`): imports NumPy alone.

Rates and means are smoothed: `(sum + strength * prior) / (count + strength)`.
"""

import numpy as np

from feedmodel.demo.specs import Priors
from feedrank.domain import FloatArray, IntArray
from feedrank.features.expressions import DAY_S

PRIOR_INTERACTIONS = 20  # strength of a click rate's prior
PRIOR_CLICKS = 5  # strength of a mean dwell time's prior


def user_columns(
    interactions: IntArray, clicks: IntArray, dwell_ms: IntArray, days: IntArray, prior: Priors
) -> dict[str, FloatArray]:
    return {
        "user_historical_ctr": _rate(clicks, interactions, prior),
        "user_avg_dwell_time": _mean_dwell_s(dwell_ms, clicks, prior),
        "user_interaction_count": interactions.astype(np.float32),
        "user_days_active": days.astype(np.float32),
    }


def item_columns(
    interactions: IntArray, clicks: IntArray, dwell_ms: IntArray, prior: Priors
) -> dict[str, FloatArray]:
    return {
        "item_ctr": _rate(clicks, interactions, prior),
        "item_avg_dwell_time": _mean_dwell_s(dwell_ms, clicks, prior),
        "item_popularity": np.log1p(clicks).astype(np.float32),
    }


def age_column(age_s: IntArray) -> dict[str, FloatArray]:
    return {"item_age_days": (age_s / DAY_S).astype(np.float32)}


def pair_columns(interactions: IntArray) -> dict[str, FloatArray]:
    return {"user_item_previous_interactions": interactions.astype(np.float32)}


def _rate(clicks: IntArray, interactions: IntArray, prior: Priors) -> FloatArray:
    rate = (clicks + PRIOR_INTERACTIONS * prior.ctr) / (interactions + PRIOR_INTERACTIONS)
    return rate.astype(np.float32)


def _mean_dwell_s(dwell_ms: IntArray, clicks: IntArray, prior: Priors) -> FloatArray:
    mean = (dwell_ms / 1_000 + PRIOR_CLICKS * prior.dwell_s) / (clicks + PRIOR_CLICKS)
    return mean.astype(np.float32)
