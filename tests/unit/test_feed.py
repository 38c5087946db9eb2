from dataclasses import fields, replace

import numpy as np
import pytest

from feedmodel.demo.feed import CATEGORIES, DAYS, DRAWS, START_S, Feed, generate_feed
from feedmodel.demo.options import MIN_ITEMS
from feedmodel.training.evaluation import reliability
from feedrank.features.expressions import DAY_S, hour

USERS, ITEMS, INTERACTIONS = 300, 400, 40_000


@pytest.fixture(scope="module")
def feed() -> Feed:
    return generate_feed(USERS, ITEMS, INTERACTIONS, seed=3)


def columns(feed: Feed) -> dict[str, list[object]]:
    return {field.name: getattr(feed, field.name).tolist() for field in fields(feed)}


def test_the_same_seed_gives_the_same_feed(feed: Feed) -> None:
    assert columns(generate_feed(USERS, ITEMS, INTERACTIONS, seed=3)) == columns(feed)


def test_another_seed_gives_another_feed(feed: Feed) -> None:
    other = generate_feed(USERS, ITEMS, INTERACTIONS, seed=4)
    assert other.item_id.tolist() != feed.item_id.tolist()


@pytest.mark.parametrize("interactions", [2_000, 9_999])
def test_the_smallest_catalogue_fills_the_feed(interactions: int) -> None:
    feed = generate_feed(10, MIN_ITEMS, interactions, seed=0)
    assert {len(getattr(feed, f.name)) for f in fields(feed) if f.name != "created_s"} == {
        interactions
    }


def test_interactions_are_in_the_order_of_time_and_slates_contiguous(feed: Feed) -> None:
    assert (np.diff(feed.time_s) >= 0).all()
    assert set(np.diff(feed.slate)) == {0, 1}
    assert feed.time_s[0] >= START_S
    assert feed.end_s <= START_S + DAYS * DAY_S


def test_a_slate_is_one_user_on_one_device_at_one_time(feed: Feed) -> None:
    within = np.diff(feed.slate) == 0
    for column in (feed.user_id, feed.time_s, feed.device):
        assert (column[1:] == column[:-1])[within].all()


def test_a_slate_shows_each_item_once(feed: Feed) -> None:
    pairs = list(zip(feed.slate.tolist(), feed.item_id.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert np.bincount(feed.slate).max() <= DRAWS


def test_no_item_is_shown_before_it_exists(feed: Feed) -> None:
    assert (feed.created_s[feed.item_id - 1] <= feed.time_s).all()


def test_items_appear_all_through_the_feed(feed: Feed) -> None:
    late = START_S + (DAYS - 7) * DAY_S
    assert (feed.created_s < START_S).mean() == pytest.approx(0.5)
    assert (feed.created_s > late).sum() >= CATEGORIES // 2


def test_few_users_make_most_of_the_interactions(feed: Feed) -> None:
    by_user = np.sort(np.bincount(feed.user_id, minlength=USERS + 1)[1:])[::-1]
    assert by_user[: USERS // 10].sum() > 0.3 * INTERACTIONS


def test_clicks_are_as_frequent_as_their_probability_says(feed: Feed) -> None:
    assert reliability(feed.clicked, feed.probability).error < 0.015


def test_the_probability_tells_interactions_apart(feed: Feed) -> None:
    assert np.quantile(feed.probability, 0.9) > 10 * np.quantile(feed.probability, 0.1)


def test_only_clicks_have_a_dwell_time(feed: Feed) -> None:
    assert ((feed.dwell_ms > 0) == feed.clicked).all()


def test_evenings_have_more_slates_than_nights(feed: Feed) -> None:
    hours = hour({}, feed.time_s[np.diff(feed.slate, prepend=-1) == 1])
    assert (hours >= 18).sum() > 4 * (hours < 6).sum()


def test_the_end_is_the_second_after_the_last_interaction(feed: Feed) -> None:
    assert replace(feed, time_s=np.array([5, 9])).end_s == 10
