"""What stands in for a live store's rows, row by row, compared with dictionaries."""

import asyncio
import struct
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from threading import Barrier
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakes
from feedrank import threads
from feedrank.domain import FeatureRows, Query
from feedrank.errors import SpecError
from feedrank.features import stored_rows
from feedrank.features.live import LiveStore
from feedrank.features.live_rows import LiveLimits
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec_reader import parse_spec
from feedrank.features.stored_rows import StoredRow
from feedrank.http.fast_path import run_through
from feedrank.threads import MAX_FAILURES, PAUSE_S
from shelves import (
    AS_OF_S,
    ITEM_DEFAULTS,
    NOW_S,
    PAIR_DEFAULT,
    SNAPSHOT_ITEMS,
    SNAPSHOT_PAIRS,
    SNAPSHOT_USERS,
    SPEC,
    USER_DEFAULT,
    Clock,
    Hanging,
    Shelf,
    item_row,
    pairs,
    snapshot,
    store,
    user_row,
)

FRESH_S = NOW_S - 30.0


def _user(value: float, of_items: dict[int, float] | None = None) -> StoredRow:
    return StoredRow(user_row(value), FRESH_S, pairs(of_items) if of_items else b"")


def _item(first: float, time_s: float = FRESH_S) -> StoredRow:
    return StoredRow(item_row(first, -first, 1e9), time_s)


def _fetch(live: LiveStore, user: int, *items: int, budget_s: float = 60.0) -> FeatureRows:
    """As on Lambda, without an event loop."""
    query = Query(user, list(items), {}, NOW_S)
    return run_through(live.fetch(query, perf_counter() + budget_s))


def _sources(rows: FeatureRows) -> str:
    assert rows.sources
    return rows.sources.sources


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.over.set()


def _down() -> None:
    raise OSError("connection refused")


# ---- The store's own rows ------------------------------------------------------------------------


def test_rows_come_from_the_store(tmp_path: Path) -> None:
    shelf = Shelf({1: _user(5.0, {7: 0.5})}, {7: _item(1.0), 8: _item(2.0)})
    rows = _fetch(store(tmp_path, shelf), 1, 8, 7, 8)
    assert rows.user.tolist() == [5.0]
    assert rows.items.tolist() == [[2.0, -2.0], [1.0, -1.0], [2.0, -2.0]]
    assert rows.others["item", "times"].tolist() == [[1e9]] * 3
    assert rows.pairs.tolist() == [[PAIR_DEFAULT], [0.5], [PAIR_DEFAULT]]
    assert (rows.unknown_user, rows.unknown_items.tolist()) == (False, [False] * 3)
    assert rows.degraded == ()
    assert rows.sources
    assert (rows.sources.sources, rows.sources.ages) == ("ssss", "mmmm")
    assert (rows.sources.refused, rows.sources.oldest_s) == (0, 30.0)
    assert sorted(shelf.reads) == [("items", (8, 7)), ("user", (1,))]  # each once


def test_unknown_ids_have_the_defaults_and_are_not_degraded(tmp_path: Path) -> None:
    """Although the snapshot has them: the store is the truth."""
    rows = _fetch(store(tmp_path, Shelf()), 1, 2)
    assert (rows.user.tolist(), rows.items.tolist()) == ([USER_DEFAULT], [[*ITEM_DEFAULTS]])
    assert np.isnan(rows.others["item", "times"]).all()
    assert rows.pairs.tolist() == [[PAIR_DEFAULT]]
    assert (rows.unknown_user, rows.unknown_items.tolist()) == (True, [True])
    assert (rows.degraded, _sources(rows)) == ((), "uu")


def test_a_user_with_pairs_alone_is_unknown_and_keeps_the_pairs(tmp_path: Path) -> None:
    """As in the snapshot."""
    shelf = Shelf({1: StoredRow(b"", FRESH_S, pairs({7: 0.5}))}, {7: _item(1.0)})
    rows = _fetch(store(tmp_path, shelf), 1, 7)
    assert (rows.user.tolist(), rows.pairs.tolist()) == ([USER_DEFAULT], [[0.5]])
    assert (rows.unknown_user, rows.degraded, _sources(rows)) == (True, (), "us")


def test_users_alone_leave_items_to_the_snapshot(tmp_path: Path) -> None:
    shelf = Shelf({1: _user(5.0, {2: 0.5})})
    rows = _fetch(store(tmp_path, shelf, reads_items=False), 1, 2, 50)
    assert (rows.user.tolist(), rows.pairs.tolist()) == ([5.0], [[0.5], [PAIR_DEFAULT]])
    assert rows.items.tolist() == [[*SNAPSHOT_ITEMS[2]], [*ITEM_DEFAULTS]]
    assert rows.others["item", "times"][0] == AS_OF_S
    assert (rows.unknown_user, rows.unknown_items.tolist()) == (False, [False, True])
    assert (rows.degraded, _sources(rows), shelf.reads) == ((), "s", [("user", (1,))])


def test_more_than_a_hundred_items_are_read_side_by_side(tmp_path: Path) -> None:
    shelf = Shelf({1: _user(5.0)}, {item: _item(item) for item in range(250)})
    rows = _fetch(store(tmp_path, shelf), 1, *range(250))
    assert rows.items[:, 0].tolist() == [*range(250)]
    assert sorted(len(ids) for kind, ids in shelf.reads if kind == "items") == [50, 100, 100]


def test_the_model_reads_the_rows(tmp_path: Path) -> None:
    live = store(tmp_path, Shelf({1: _user(5.0, {7: 0.5})}, {7: _item(1.0)}))
    matrix = MatrixBuilder(SPEC, check_tables=True)
    query = Query(1, [7, 8], {}, 1e9 + 86_400.0)
    built = matrix.build(query, _fetch(live, 1, 7, 8))["x"]
    assert built.tolist() == [[5.0, 1.0, 1.0, -1.0, 0.5], [5.0, -2.0, 0.0, -3.0, PAIR_DEFAULT]]


# ---- The cache -----------------------------------------------------------------------------------


def test_a_row_in_the_cache_is_not_read_again_until_it_is_old(tmp_path: Path) -> None:
    clock, shelf = Clock(), Shelf({1: _user(5.0)}, {7: _item(1.0)})
    live = store(tmp_path, shelf, clock)
    assert _sources(_fetch(live, 1, 7, 8)) == "ssu"
    shelf.reads.clear()
    clock.now_s += 59.0
    shelf.items[7] = _item(9.0)
    rows = _fetch(live, 1, 7, 8)
    assert (_sources(rows), rows.items[:, 0].tolist()) == ("scu", [1.0, ITEM_DEFAULTS[0]])
    assert (rows.degraded, rows.unknown_items.tolist()) == ((), [False, True])
    assert shelf.reads == [("user", (1,))]  # the unknown is not asked for again, either
    clock.now_s += 2.0
    rows = _fetch(live, 1, 7, 8)
    assert (_sources(rows), rows.items[0, 0]) == ("ssu", 9.0)


def test_a_cache_that_is_full_replaces_the_oldest(tmp_path: Path) -> None:
    shelf = Shelf({}, {item: _item(item) for item in range(1_000)})
    live = store(tmp_path, shelf, cache_bytes=10 * 180)
    for item in range(20):
        _fetch(live, 1, item)
    shelf.reads.clear()
    rows = _fetch(live, 1, *range(20))
    assert _sources(rows) == "u" + "s" * 10 + "c" * 10
    assert rows.items[:, 0].tolist() == [*range(20)]
    assert ("items", tuple(range(10))) in shelf.reads


def test_a_request_that_is_larger_than_the_cache_is_whole(tmp_path: Path) -> None:
    shelf = Shelf({}, {item: _item(item) for item in range(100)})
    live = store(tmp_path, shelf, cache_bytes=1)
    for _ in range(2):
        assert _fetch(live, 1, *range(100)).items[:, 0].tolist() == [*range(100)]


# ---- The ladder ----------------------------------------------------------------------------------


def test_without_the_store_rows_come_from_the_old_cache_the_snapshot_and_the_defaults(
    tmp_path: Path, log: fakes.LogLines
) -> None:
    clock, shelf = Clock(), Shelf({1: _user(5.0)}, {7: _item(1.0), 50: _item(2.0)})
    live = store(tmp_path, shelf, clock)
    _fetch(live, 1, 7, 50)
    clock.now_s += 600.0
    shelf.before = _down
    rows = _fetch(live, 1, 7, 50, 3, 60)
    assert _sources(rows) == "boobd"
    assert rows.user.tolist() == [SNAPSHOT_USERS[1]]
    assert rows.items.tolist() == [[1.0, -1.0], [2.0, -2.0], [*SNAPSHOT_ITEMS[3]], [*ITEM_DEFAULTS]]
    assert rows.others["item", "times"][:3].tolist() == [[1e9], [1e9], [AS_OF_S]]
    assert rows.pairs[:, 0].tolist() == [SNAPSHOT_PAIRS[1, 7], -4.0, SNAPSHOT_PAIRS[1, 3], -4.0]
    assert rows.degraded == ("features:cache 2/5", "features:snapshot 2/5", "features:defaults 1/5")
    assert (rows.unknown_user, rows.unknown_items.tolist()) == (False, [False] * 4)
    assert rows.sources
    assert rows.sources.ages == "whhw-"
    assert {line["reason"] for line in log()} == {"OSError in test_live_store.py:" + LINE_OF_DOWN}


LINE_OF_DOWN = str(_down.__code__.co_firstlineno + 1)


def test_a_part_that_fails_is_replaced_and_the_rest_is_used(tmp_path: Path) -> None:
    shelf = Shelf({1: _user(5.0)}, {7: _item(1.0), 8: _item(2.0)}, fails_for={8, 60})
    rows = _fetch(store(tmp_path, shelf), 1, 7, 8, 60)
    assert (_sources(rows), rows.items[:, 0].tolist()) == ("ssbd", [1.0, 208.0, -2.0])
    assert rows.degraded == ("features:snapshot 1/4", "features:defaults 1/4")


REFUSED = {
    "another width": StoredRow(item_row(1, 1)[:-4], FRESH_S),
    "a row of a user": StoredRow(user_row(1.0) + bytes(12), FRESH_S),
    "NaN": StoredRow(item_row(nan, 1), FRESH_S),
    "infinity": StoredRow(item_row(1, inf), FRESH_S),
    "no time": StoredRow(item_row(1, 1), nan),
    "a time in milliseconds": StoredRow(item_row(1, 1), 1_000 * FRESH_S),
    "a time of minus infinity": StoredRow(item_row(1, 1), -inf),
    "nothing": StoredRow(b"", FRESH_S),
}


@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED)
def test_a_row_that_is_wrong_is_refused_counted_and_replaced(
    wrong: StoredRow, tmp_path: Path, log: fakes.LogLines
) -> None:
    shelf = Shelf({1: _user(5.0)}, {7: _item(1.0), 8: wrong})
    live = store(tmp_path, shelf)
    for expected in ("ssb", "scb"):
        rows = _fetch(live, 1, 7, 8)
        assert (_sources(rows), rows.items[:, 0].tolist()) == (expected, [1.0, 208.0])
        assert rows.degraded == ("features:snapshot 1/3",)
        assert rows.sources
        assert rows.sources.refused == 1
    (line,) = log()  # once, though it is read in each request
    assert (line["message"], line["source"]) == ("feature row refused", "item")


@pytest.mark.parametrize(
    "wrong",
    [
        StoredRow(user_row(nan), FRESH_S),
        StoredRow(user_row(1.0), nan),
        StoredRow(user_row(1.0), FRESH_S, pairs({7: nan})),
        StoredRow(user_row(1.0), FRESH_S, pairs({7: 1.0})[:-4]),
        StoredRow(user_row(1.0), FRESH_S, b"?"),
        StoredRow(item_row(1.0, 1.0), FRESH_S),
        StoredRow(b"", FRESH_S),
        StoredRow(b"?", FRESH_S, pairs({7: 1.0})),
    ],
)
def test_a_user_whose_row_or_pairs_are_wrong_is_the_snapshots(
    wrong: StoredRow, tmp_path: Path
) -> None:
    rows = _fetch(store(tmp_path, Shelf({1: wrong}, {7: _item(1.0)})), 1, 7)
    assert (_sources(rows), rows.user.tolist()) == ("bs", [SNAPSHOT_USERS[1]])
    assert rows.pairs.tolist() == [[SNAPSHOT_PAIRS[1, 7]]]
    assert rows.degraded == ("features:snapshot 1/2",)


def test_rows_that_are_too_old_take_the_next_step(tmp_path: Path) -> None:
    old_s = NOW_S - 100_000.0
    shelf = Shelf(
        {1: _user(5.0)._replace(time_s=old_s)},
        {7: _item(1.0, old_s), 8: _item(2.0), 60: _item(3.0, old_s)},
    )
    rows = _fetch(store(tmp_path, shelf, max_age_s=90_000.0), 1, 7, 8, 60)
    assert (_sources(rows), rows.items[:, 0].tolist()) == ("bbsd", [207.0, 2.0, -2.0])
    assert rows.degraded == ("features:snapshot 2/4", "features:defaults 1/4")
    rows = _fetch(store(tmp_path, shelf, max_age_s=200_000.0), 1, 7, 8, 60)
    assert (_sources(rows), rows.degraded) == ("ssss", ())


@pytest.mark.parametrize("as_of_s", [AS_OF_S, -inf])
def test_a_snapshot_that_is_too_old_or_of_no_known_time_takes_the_next_step(
    as_of_s: float, tmp_path: Path
) -> None:
    live = store(tmp_path, Shelf(before=_down), as_of_s=as_of_s, max_age_s=3_600.0)
    rows = _fetch(live, 1, 7)
    assert (_sources(rows), rows.items.tolist()) == ("dd", [[*ITEM_DEFAULTS]])
    assert (rows.user.tolist(), rows.pairs.tolist()) == ([USER_DEFAULT], [[PAIR_DEFAULT]])
    assert rows.degraded == ("features:defaults 2/2",)
    assert (rows.unknown_user, rows.unknown_items.tolist()) == (False, [False])


@pytest.mark.parametrize(
    ("user", "items", "reads_items", "all_lost"),
    [
        (50, (60, 61), True, True),
        (50, (60, 7), True, False),  # the snapshot has 7
        (1, (60, 61), True, False),
        (50, (60, 61), False, False),  # items are the snapshot's, which says that they are unknown
    ],
)
def test_all_is_lost_where_the_store_is_and_the_snapshot_knows_nothing(
    user: int, items: tuple[int, ...], *, reads_items: bool, all_lost: bool, tmp_path: Path
) -> None:
    live = store(tmp_path, Shelf(before=_down), reads_items=reads_items)
    rows = _fetch(live, user, *items)
    assert rows.sources
    assert rows.sources.all_lost == all_lost


def test_ids_that_the_store_does_not_know_are_not_lost(tmp_path: Path) -> None:
    rows = _fetch(store(tmp_path, Shelf()), 50, 60)
    assert rows.sources
    assert (rows.sources.sources, rows.sources.all_lost) == ("uu", False)


# ---- Time ----------------------------------------------------------------------------------------


def test_a_store_that_hangs_costs_its_budget_and_then_nothing(
    tmp_path: Path, hanging: Hanging, log: fakes.LogLines
) -> None:
    shelf = Shelf(before=hanging)
    live = store(tmp_path, shelf, budget_s=0.01)
    for _ in range(MAX_FAILURES + 3):
        assert _fetch(live, 1, 7).degraded == ("features:snapshot 2/2",)
    assert len(shelf.reads) <= 2 * MAX_FAILURES  # of a user and of items
    assert len(log()) == 2 * MAX_FAILURES


def test_a_store_that_hangs_for_users_is_not_asked_for_items_either(
    tmp_path: Path, hanging: Hanging, log: fakes.LogLines
) -> None:
    shelf, clock = Shelf({1: _user(5.0)}, {7: _item(1.0)}), Clock()
    live = store(tmp_path, shelf, clock, budget_s=0.5)
    _fetch(live, 1, 7)
    shelf.before = hanging
    for _ in range(MAX_FAILURES):
        assert _sources(_fetch(live, 1, 7)) == "bc"
    shelf.reads.clear()
    assert _sources(_fetch(live, 1, 7, 8)) == "bcb"
    assert (shelf.reads, len(log())) == ([], MAX_FAILURES)


def test_items_that_are_throttled_leave_users_alone(tmp_path: Path) -> None:
    shelf = Shelf({1: _user(5.0)}, fails_for={7})
    live = store(tmp_path, shelf)
    for _ in range(MAX_FAILURES + 2):
        assert _sources(_fetch(live, 1, 7)) == "sb"
    assert [kind for kind, _ in shelf.reads].count("items") == MAX_FAILURES


def test_after_a_pause_one_request_tries_the_store_again(tmp_path: Path) -> None:
    shelf, clock = Shelf({1: _user(5.0)}, {7: _item(1.0)}, before=_down), fakes.FakeClock()
    live = store(tmp_path, shelf)
    live._reads._clock = clock
    live.connect()
    for _ in range(MAX_FAILURES):
        _fetch(live, 1, 7)
    shelf.before = Shelf().before
    assert _sources(_fetch(live, 1, 7)) == "bb"
    clock.now_s += PAUSE_S
    assert _sources(_fetch(live, 1, 7)) == "ss"
    assert _sources(_fetch(live, 1, 7)) == "sc"


def test_a_request_with_no_time_left_reads_nothing_and_blames_nobody(
    tmp_path: Path, log: fakes.LogLines
) -> None:
    shelf = Shelf({1: _user(5.0)}, {7: _item(1.0)})
    live = store(tmp_path, shelf)
    for _ in range(MAX_FAILURES + 1):
        assert _sources(_fetch(live, 1, 7, budget_s=-1.0)) == "bb"
    assert (shelf.reads, log()) == ([], [])
    assert _sources(_fetch(live, 1, 7)) == "ss"


def test_requests_that_wait_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred at once on an event loop: all of them are in the store before any is answered."""
    monkeypatch.setattr(threads, "MAX_QUEUE_S", 60)
    all_there = Barrier(100, timeout=60)
    shelf = Shelf({user: _user(user) for user in range(100)}, before=all_there.wait)
    live = store(tmp_path, shelf, reads_items=False)

    async def all_at_once() -> list[FeatureRows]:
        queries = [Query(user, [7], {}, NOW_S) for user in range(100)]
        deadline_s = perf_counter() + 60
        return await asyncio.gather(*(live.fetch(query, deadline_s) for query in queries))

    rows = asyncio.run(all_at_once())
    assert [each.user[0] for each in rows] == [*range(100)]
    assert {each.degraded for each in rows} == {()}


def test_on_lambda_no_event_loop_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = store(tmp_path, Shelf())
    assert live.waits
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "feedrank")
    assert not live.waits


def test_connections_are_opened_at_init_and_after_a_restore(tmp_path: Path) -> None:
    shelf = Shelf()
    live = store(tmp_path, shelf)
    live.connect()
    assert (shelf.connected, shelf.reads) == (2, [])


def test_a_store_that_is_down_at_init_is_logged_and_awaited_by_nobody(log: fakes.LogLines) -> None:
    stored_rows._probe(_down)
    (line,) = log()
    assert line["message"] == "feature store can't be reached"
    assert line["reason"].startswith("OSError in test_live_store.py:")


def test_a_spec_that_rows_can_not_hold_is_refused(tmp_path: Path) -> None:
    country = {"name": "country", "source": "user", "vocabulary": "countries"}
    spec = parse_spec(
        {
            "inputs": [
                {"name": "n", "type": "int64", "features": [country]},
                {"name": "x", "features": [{"name": "i", "source": "item"}]},
            ],
            "vocabularies": {"countries": ["de"]},
        }
    )
    limits = LiveLimits(budget_s=1.0, cache_bytes=1, cache_s=1.0)
    with pytest.raises(SpecError, match="country of a user has a vocabulary"):
        LiveStore(Shelf(), snapshot(tmp_path), spec, limits, reads_items=False)


# ---- Compared with a reference -------------------------------------------------------------------

_ids = st.sampled_from([0, 1, 5, 9, 10, 50, 2**62])
_times = st.sampled_from([NOW_S - 10.0, NOW_S - 5_000.0, NOW_S - 90_000.0])
_rows = st.one_of(
    st.builds(_item, st.floats(-100, 100, width=32), _times), st.sampled_from([*REFUSED.values()])
)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(_ids, _rows),
            st.sets(_ids),
            st.lists(_ids, min_size=1, max_size=12),
            st.sampled_from([1.0, 30.0, 100.0]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([inf, 7_000.0]),
)
def test_each_item_is_what_its_source_says(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[dict[int, StoredRow], set[int], list[int], float]],
    max_age_s: float,
) -> None:
    """Whatever the store has, fails at and had before: each row is the one of the source that the
    record names, and no better source had one."""
    clock, shelf = Clock(), Shelf()
    live = store(tmp_path_factory.getbasetemp(), shelf, clock, max_age_s=max_age_s)
    history: dict[int, list[StoredRow]] = {}
    for stored, failing, items, later_s in requests:
        shelf.items, shelf.fails_for = stored, failing
        shelf.reads.clear()
        live._reads.connect()  # with a closed breaker
        rows = _fetch(live, 1, *items)
        read = {item for kind, ids in shelf.reads if kind == "items" for item in ids}
        for item in read - failing:
            if item in stored and stored[item] not in REFUSED.values():
                history.setdefault(item, []).append(stored[item])
        for item, source, cells, unknown in zip(
            items, _sources(rows)[1:], rows.items.tolist(), rows.unknown_items.tolist(), strict=True
        ):
            good = history.get(item, [])
            assert unknown == (source == "u")
            if source in "sco":
                assert cells == [_cell(good[-1]), -_cell(good[-1])]
                assert clock.now_s - good[-1].time_s <= max_age_s
                is_good = item in stored and stored[item] not in REFUSED.values()
                assert (source == "s") == (is_good and item in read - failing)
            elif source == "b":
                assert cells == [*SNAPSHOT_ITEMS[item]]
            else:
                assert cells == [*ITEM_DEFAULTS]
            if source == "d":
                assert item not in SNAPSHOT_ITEMS or max_age_s < clock.now_s - AS_OF_S
            if source == "u" and item in read:
                assert item not in stored
                assert item not in failing
        clock.now_s += later_s


def _cell(stored: StoredRow) -> float:
    value: float = struct.unpack("<Idff", stored.row)[2]
    return value
