"""The feed split in time: warm-up, then training, validation and test.

The warm-up gives the others a history and the priors; nothing is trained or evaluated on it. Each
window has whole weeks, so that each has its share of weekends.
"""

from dataclasses import dataclass

import numpy as np

from feedmodel.demo.feed import DAYS, START_S, Feed
from feedrank.features.expressions import DAY_S

WEEK_S = 7 * DAY_S
WARM_UP_WEEKS = 1
VALIDATION_WEEKS = 1
TEST_WEEKS = 1

TRAIN_S = START_S + WARM_UP_WEEKS * WEEK_S  # each window's first second
TEST_S = START_S + DAYS * DAY_S - TEST_WEEKS * WEEK_S
VALIDATION_S = TEST_S - VALIDATION_WEEKS * WEEK_S


@dataclass(frozen=True, slots=True)
class Windows:
    """Each window's interactions in the feed, which is in the order of time."""

    train: slice
    validation: slice
    test: slice


def split(feed: Feed) -> Windows:
    starts = np.searchsorted(feed.time_s, (TRAIN_S, VALIDATION_S, TEST_S)).tolist()
    train, validation, test = starts
    return Windows(slice(train, validation), slice(validation, test), slice(test, None))
