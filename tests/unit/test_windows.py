from dataclasses import replace

import numpy as np

from feedmodel.demo.feed import DAYS, START_S, generate_feed
from feedmodel.demo.windows import TRAIN_S, WEEK_S, split

DAY_S = 86_400


def test_each_window_begins_with_a_week_and_the_warm_up_belongs_to_none() -> None:
    feed = generate_feed(50, 200, 2_000, seed=1)
    moments = np.array(
        [
            START_S,  # warm-up
            TRAIN_S - 1,
            TRAIN_S,  # five weeks of training
            TRAIN_S + 5 * WEEK_S - 1,
            TRAIN_S + 5 * WEEK_S,  # one of validation
            TRAIN_S + 6 * WEEK_S - 1,
            TRAIN_S + 6 * WEEK_S,  # one of test
            START_S + DAYS * DAY_S - 1,
        ]
    )
    windows = split(replace(feed, time_s=moments))
    assert (windows.train, windows.validation, windows.test) == (
        slice(2, 4),
        slice(4, 6),
        slice(6, None),
    )
