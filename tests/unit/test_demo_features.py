from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feedmodel.demo.features import feature_tables, priors, training_columns
from feedmodel.demo.feed import Feed, generate_feed
from feedmodel.demo.formulas import PRIOR_CLICKS, PRIOR_INTERACTIONS
from feedmodel.demo.specs import Priors, deep_mlp_spec, two_tower_spec
from feedmodel.demo.windows import TRAIN_S
from feedmodel.training.matrix import FeatureColumns, column_inputs
from feedrank.domain import FeatureRows, FloatArray, Query
from feedrank.features.expressions import DAY_S
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.spec_reader import parse_spec

FEATURES = [
    "user_historical_ctr",
    "user_avg_dwell_time",
    "user_interaction_count",
    "user_days_active",
    "item_ctr",
    "item_avg_dwell_time",
    "item_popularity",
    "item_age_days",
    "hour_of_day",
    "day_of_week",
    "device_mobile",
    "device_desktop",
    "device_tablet",
    "user_item_previous_interactions",
    "is_weekend",
]
USER, ITEM, CONTEXT = FEATURES[:4], FEATURES[4:8], [*FEATURES[8:13], "is_weekend"]
PAIR = ["user_item_previous_interactions"]
PRIOR = Priors(ctr=0.125, dwell_s=20.0, device="mobile", age_days=25.0)


@pytest.fixture(scope="module")
def feed() -> Feed:
    """Small and dense: users see the same items again, on the same and on other days."""
    return generate_feed(40, 200, 6_000, seed=5)


@pytest.fixture(scope="module")
def columns(feed: Feed) -> FeatureColumns:
    return training_columns(feed, PRIOR)


def sampled_rows(feed: Feed) -> list[int]:
    sample = np.random.default_rng(0).choice(len(feed.time_s), 300, replace=False)
    return [0, *np.sort(sample).tolist(), len(feed.time_s) - 1]


def naive_rates(feed: Feed, rows: np.ndarray) -> list[float]:
    """Click rate and mean dwell time, smoothed."""
    clicks = sum(feed.clicked[rows].tolist())
    dwell_s = sum(feed.dwell_ms[rows].tolist()) / 1_000
    return [
        (clicks + PRIOR_INTERACTIONS * PRIOR.ctr) / (len(rows) + PRIOR_INTERACTIONS),
        (dwell_s + PRIOR_CLICKS * PRIOR.dwell_s) / (clicks + PRIOR_CLICKS),
    ]


def naive_user(feed: Feed, user_id: int, before_s: int) -> list[float]:
    rows = np.flatnonzero((feed.user_id == user_id) & (feed.time_s < before_s))
    days = {time_s // DAY_S for time_s in feed.time_s[rows].tolist()}
    return [*naive_rates(feed, rows), len(rows), len(days)]


def naive_item(feed: Feed, item_id: int, before_s: int) -> list[float]:
    rows = np.flatnonzero((feed.item_id == item_id) & (feed.time_s < before_s))
    age_days = (before_s - feed.created_s[item_id - 1]) / DAY_S
    return [*naive_rates(feed, rows), np.log(1 + feed.clicked[rows].sum()), age_days]


def naive_pair(feed: Feed, user_id: int, item_id: int, before_s: int) -> list[float]:
    same = (feed.user_id == user_id) & (feed.item_id == item_id) & (feed.time_s < before_s)
    return [sum(same.tolist())]


def table(columns: FeatureColumns, names: list[str], rows: list[int]) -> FloatArray:
    return np.column_stack([columns[name][rows] for name in names])


def test_the_specs_hold_the_agreed_features_in_order() -> None:
    deep, tower = deep_mlp_spec(PRIOR), two_tower_spec(PRIOR)
    assert {i.name: [f.name for f in i.features] for i in deep.inputs} == {"features": FEATURES}
    assert {(i.name, i.per): [f.name for f in i.features] for i in tower.inputs} == {
        ("user_features", "request"): USER + CONTEXT,
        ("item_features", "item"): ITEM,
    }


@pytest.mark.parametrize("spec", [deep_mlp_spec(PRIOR), two_tower_spec(PRIOR)])
def test_the_specs_are_what_serving_reads(spec: FeatureSpec) -> None:
    assert parse_spec(spec.to_json()) == spec


def test_defaults_are_the_priors() -> None:
    spec = deep_mlp_spec(PRIOR)
    assert {f.name: f.default for f in spec.inputs[0].features if f.default} == {
        "user_historical_ctr": 0.125,
        "user_avg_dwell_time": 20.0,
        "item_ctr": 0.125,
        "item_avg_dwell_time": 20.0,
        "item_age_days": 25.0,
        "device_mobile": 1.0,
    }


def test_a_rows_aggregates_are_those_of_strictly_earlier_rows(
    feed: Feed, columns: FeatureColumns
) -> None:
    rows = sampled_rows(feed)
    who = [(int(feed.user_id[r]), int(feed.item_id[r]), int(feed.time_s[r])) for r in rows]
    expected = [
        naive_user(feed, user, at) + naive_item(feed, item, at) + naive_pair(feed, user, item, at)
        for user, item, at in who
    ]
    actual = table(columns, USER + ITEM + PAIR, rows)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert actual[:, -1].max() > 1  # some saw the item before


def test_a_users_first_slate_has_no_active_days(feed: Feed, columns: FeatureColumns) -> None:
    first_slate = feed.slate == 0
    assert columns["user_days_active"][first_slate].tolist() == [0.0] * first_slate.sum()


def test_no_row_changes_when_the_rows_from_its_own_time_on_do(
    feed: Feed, columns: FeatureColumns
) -> None:
    now_s = int(feed.time_s[3_000])
    future = feed.time_s >= now_s
    rng = np.random.default_rng(1)
    other = replace(
        feed,
        user_id=np.where(future, feed.user_id % 40 + 1, feed.user_id),
        item_id=np.where(future, rng.integers(1, 201, len(future)), feed.item_id),
        clicked=np.where(future, ~feed.clicked, feed.clicked),
        dwell_ms=np.where(future, 77_000 + feed.dwell_ms, feed.dwell_ms),
        probability=np.where(future, 1 - feed.probability, feed.probability),
    )
    perturbed = training_columns(other, PRIOR)
    assert {n: c[~future].tolist() for n, c in perturbed.items()} == {
        n: c[~future].tolist() for n, c in columns.items()
    }
    assert perturbed["item_ctr"][future].tolist() != columns["item_ctr"][future].tolist()


def test_a_rows_features_exclude_its_own_outcome_and_its_slates(
    feed: Feed, columns: FeatureColumns
) -> None:
    now = feed.time_s == feed.time_s[3_000]
    other = replace(feed, clicked=feed.clicked ^ now, dwell_ms=feed.dwell_ms + 1_000 * now)
    perturbed = training_columns(other, PRIOR)
    assert {n: c[now].tolist() for n, c in perturbed.items()} == {
        n: c[now].tolist() for n, c in columns.items()
    }


def test_the_priors_are_those_of_the_warm_up(feed: Feed) -> None:
    rows = range(int((feed.time_s < TRAIN_S).sum()))
    clicks = sum(bool(feed.clicked[row]) for row in rows)
    dwell_s = sum(int(feed.dwell_ms[row]) for row in rows) / 1_000
    devices = [str(feed.device[row]) for row in rows]
    ages_s = [int(feed.time_s[row] - feed.created_s[feed.item_id[row] - 1]) for row in rows]
    assert priors(feed, TRAIN_S) == Priors(
        ctr=clicks / len(rows),
        dwell_s=dwell_s / clicks,
        device=max(set(devices), key=devices.count),
        age_days=sum(ages_s) / DAY_S / len(rows),
    )


def test_a_snapshot_equals_a_naive_recomputation(feed: Feed) -> None:
    as_of_s = int(feed.time_s[4_000])
    tables = feature_tables(feed, as_of_s, PRIOR)
    past = range(int(np.searchsorted(feed.time_s, as_of_s)))
    users = sorted({int(feed.user_id[row]) for row in past})
    items = [n + 1 for n, created_s in enumerate(feed.created_s) if created_s < as_of_s]
    pairs = sorted({(int(feed.user_id[row]), int(feed.item_id[row])) for row in past})

    assert tables["users"].columns.tolist() == ["user_id", *USER]
    assert tables["items"].columns.tolist() == ["item_id", *ITEM]
    assert tables["pairs"].columns.tolist() == ["user_id", "item_id", *PAIR]
    assert tables["users"]["user_id"].tolist() == users
    assert tables["items"]["item_id"].tolist() == items
    assert list(zip(tables["pairs"]["user_id"], tables["pairs"]["item_id"], strict=True)) == pairs
    for actual, expected in (
        (tables["users"][USER], [naive_user(feed, user, as_of_s) for user in users]),
        (tables["items"][ITEM], [naive_item(feed, item, as_of_s) for item in items]),
        (tables["pairs"][PAIR], [naive_pair(feed, *pair, as_of_s) for pair in pairs]),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_snapshot_ids_are_int64_and_features_float32(feed: Feed) -> None:
    tables = feature_tables(feed, feed.end_s, PRIOR)
    for frame, ids in ((tables["users"], 1), (tables["items"], 1), (tables["pairs"], 2)):
        assert [str(kind) for kind in frame.dtypes] == ["int64"] * ids + ["float32"] * (
            len(frame.columns) - ids
        )


def known_rows(spec: FeatureSpec, tables: pd.DataFrame, source: Source, key: object) -> FloatArray:
    """The table's row, or the spec's defaults."""
    if key not in tables.index:
        return spec.defaults(source)
    return tables.loc[[key]].to_numpy(dtype=np.float32)[0]


@pytest.mark.parametrize("make_spec", [deep_mlp_spec, two_tower_spec])
def test_a_training_row_is_what_serving_builds_from_a_snapshot_of_that_moment(
    feed: Feed, columns: FeatureColumns, make_spec: Callable[[Priors], FeatureSpec]
) -> None:
    spec = make_spec(PRIOR)
    inputs, builder = column_inputs(spec, columns), MatrixBuilder(spec)
    for row in sampled_rows(feed)[::25]:
        user, item = int(feed.user_id[row]), int(feed.item_id[row])
        at = int(feed.time_s[row])
        tables = feature_tables(feed, at, PRIOR)
        pair_table = tables["pairs"].set_index(["user_id", "item_id"])
        pair = known_rows(spec, pair_table, "pair", (user, item)) if spec.columns("pair") else []
        known = FeatureRows(
            user=known_rows(spec, tables["users"].set_index("user_id"), "user", user),
            items=known_rows(spec, tables["items"].set_index("item_id"), "item", item)[None],
            pairs=np.array([pair], dtype=np.float32),
            unknown_user=False,
            unknown_items=np.zeros(1, np.bool_),
        )
        query = Query(user, [item], {"device": str(feed.device[row])}, float(at))
        served = builder.build(query, known)
        assert {name: matrix.tolist() for name, matrix in served.items()} == {
            name: matrix[row : row + 1].tolist() for name, matrix in inputs.items()
        }
