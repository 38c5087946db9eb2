"""Each example in `tests/examples`, as a team's `function/extensions.py` in a running function."""

import json
import operator
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import demo
import fakes
from feedops.local import gateway
from feedrank.domain import FeatureRows
from feedrank.errors import SpecError, StageError
from feedrank.extensions import STORE, Extensions, load_extensions_file
from feedrank.features import expressions as context
from feedrank.features.spec_reader import parse_spec
from feedrank.ranking.stages import RankingStage, Scored, apply_stages

EXAMPLES = Path(__file__).parents[1] / "examples"
USER = 42
ITEMS = [3, 17, 5_000, 256, 88, 1, 2]  # of them 5000 is unknown
PAIR_AT = 13  # of the demo's features
ODD_ITEMS_ONLY = """
class OddItemsOnly:
    name = "odd items only"

    def reorder(self, scored):
        return [at for at in scored.order if scored.query.item_ids[at] % 2]

STAGES = [OddItemsOnly()]
"""


@pytest.fixture(autouse=True)
def _no_expression_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_registered", {})


@contextmanager
def _container(bundle: Path, module: str = "", **env: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        with fakes.container(MODEL_URI=str(bundle), EXTENSIONS=module, **env) as container:
            yield container


def _respond(
    container: ModuleType, user_id: int = USER, item_ids: Sequence[int] = ITEMS
) -> dict[str, Any]:
    context = {"device": "mobile", "timestamp": "2025-11-28T12:00:00Z"}
    content = {"user_id": user_id, "item_ids": item_ids, "context": context}
    request = gateway.HttpRequest(
        "POST", "/predict", headers=[], body=json.dumps(content).encode(), source_ip="203.0.113.7"
    )
    event = gateway.to_event(request, gateway.new_request_id(), 0.0)
    response: dict[str, Any] = container.lambda_handler(event, fakes.LambdaContext())
    return response


def _rank(
    container: ModuleType, user_id: int = USER, item_ids: Sequence[int] = ITEMS
) -> dict[str, Any]:
    response = _respond(container, user_id, item_ids)
    assert response["statusCode"] == 200, response["body"]
    ranked: dict[str, Any] = json.loads(response["body"])
    return ranked


def _scores(ranked: dict[str, Any]) -> dict[int, float]:
    return {each["item_id"]: each["score"] for each in ranked["predictions"]}


# ---- Stages --------------------------------------------------------------------------------------


def _reordered(authors: Sequence[int], stages: Sequence[RankingStage]) -> list[int]:
    """Positions of items whose scores fall from the first to the last."""
    features = [{"name": "price", "source": "item"}, {"name": "author", "source": "item"}]
    spec = parse_spec({"inputs": [{"name": "features", "features": features}]})
    items = np.stack([np.ones(len(authors)), authors], axis=1).astype(np.float32)
    none = np.zeros((len(authors), 0), np.float32)
    known = np.zeros(len(authors), np.bool_)
    rows = FeatureRows(none[:1], items, none, unknown_user=False, unknown_items=known)
    query = fakes.query(1, range(len(authors)))
    scores = np.linspace(1, 0, len(authors)).tolist()
    return apply_stages(stages, Scored(query, rows, scores, range(len(authors)), spec))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_no_two_items_of_one_author_stand_in_a_row_while_there_is_another_s(
    authors: list[int],
) -> None:
    order = _reordered(authors, load_extensions_file(EXAMPLES / "two_in_a_row.py").stages)
    assert sorted(order) == list(range(len(authors)))
    listed = [authors[at] for at in order]
    for at in range(1, len(listed)):
        assert listed[at] != listed[at - 1] or Counter(listed[at:]).keys() == {listed[at]}


def test_the_best_item_that_is_allowed_comes_next() -> None:
    (stage,) = load_extensions_file(EXAMPLES / "two_in_a_row.py").stages
    assert stage.name == "no two of one author in a row"
    assert _reordered([7, 7, 7, 8, 9], [stage]) == [0, 3, 1, 4, 2]


def test_a_stage_of_a_function_drops_items_and_is_recorded(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_items_only.py").write_text(ODD_ITEMS_ONLY)
    monkeypatch.syspath_prepend(tmp_path)
    with _container(demo_bundle) as container:
        plain = [each["item_id"] for each in _rank(container)["predictions"]]
    directory = tmp_path / "decisions"
    with _container(demo_bundle, "odd_items_only", DECISION_LOG_DIR=str(directory)) as container:
        ranked = [each["item_id"] for each in _rank(container)["predictions"]]
    assert ranked == [item for item in plain if item % 2]
    (file,) = directory.iterdir()
    record = json.loads(file.read_bytes())
    assert record["stages"] == ["odd items only"]
    assert record["item_ids"] == ITEMS
    assert record["ranks"] == [ranked.index(i) + 1 if i in ranked else None for i in ITEMS]


FAILING = """
class Failing:
    name = "no old items"

    def reorder(self, scored):
        raise ValueError(f"{scored.query.user_id} has no such column")

STAGES = [Failing()]
"""


def test_the_log_names_the_stage_that_failed_and_the_line_but_no_payload(
    demo_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "failing_stage.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    with _container(demo_bundle, "failing_stage") as container:
        capsys.readouterr()
        response = _respond(container, 918_273_645)
    assert (response["statusCode"], "failing_stage" in response["body"]) == (500, False)
    (text,) = capsys.readouterr().out.splitlines()
    line = json.loads(text)
    assert (line["status"], line["error"]) == (500, "StageError")
    assert line["reason"] == "stage 'no old items' failed: ValueError in failing_stage.py:6"
    assert "918273645" not in text


class Fixed:
    """Returns these positions, whatever it gets."""

    def __init__(self, *positions: int, name: str = "fixed") -> None:
        self.name = name
        self._positions = positions

    def reorder(self, scored: Scored) -> Sequence[int]:
        return self._positions


@pytest.mark.parametrize("positions", [(0, 0), (0, 3), (-1,)])
def test_a_stage_that_returns_other_positions_fails_the_request(
    positions: tuple[int, ...],
) -> None:
    with pytest.raises(StageError, match=r"stage 'fixed' returned a position twice, or one that"):
        _reordered([1, 2, 3], [Fixed(*positions)])


CHANGES: list[Callable[[Scored], object]] = [
    lambda scored: operator.setitem(scored.rows.items, (0, 0), 9),
    lambda scored: operator.setitem(scored.rows.user, 0, 9),
    lambda scored: operator.setitem(scored.rows.unknown_items, 0, 1),
    lambda scored: operator.setitem(scored.rows.others, ("item", "values"), None),
    lambda scored: scored.column("item", "author").fill(9),
    lambda scored: operator.setitem(scored.scores, 0, 9.0),
    lambda scored: operator.setitem(scored.query.item_ids, 0, 9),
    lambda scored: operator.setitem(scored.query.context, "device", "x"),
    lambda scored: operator.iadd(scored.order, [9]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_stage_can_change_nothing_that_others_read(change: Callable[[Scored], object]) -> None:
    class Changing(Fixed):
        def reorder(self, scored: Scored) -> Sequence[int]:
            change(scored)
            return scored.order

    with pytest.raises(StageError, match=r"stage 'changing' failed: (Type|Value)Error in "):
        _reordered([1, 2, 3], [Changing(name="changing")])


def test_a_stage_sees_what_the_one_before_it_left() -> None:
    assert _reordered([1, 2, 3], [Fixed(2, 0), Fixed(0)]) == [0]
    with pytest.raises(StageError, match="stage 'second'"):
        _reordered([1, 2, 3], [Fixed(2, 0), Fixed(1, name="second")])


def test_a_stage_that_raises_fails_the_request_by_its_name() -> None:
    class Buggy(Fixed):
        def reorder(self, scored: Scored) -> Sequence[int]:
            return [int(scored.column("item", "colour")[0])]

    with pytest.raises(
        StageError, match=r"'fixed' failed: KeyError in test_ext\w+\.py:\d+"
    ) as error:
        _reordered([1], [Buggy()])
    assert "no item feature 'colour'" in str(error.value.__cause__)


# ---- Stores --------------------------------------------------------------------------------------


def _database(directory: Path) -> Path:
    """User 9999 has user 7's row, item 5000 item 88's."""
    tables, database = demo.demo_tables(), directory / "features.db"
    copies = {"users": ("user_id", 7, 9_999), "items": ("item_id", 88, 5_000)}
    with closing(sqlite3.connect(database)) as connection:
        for name, (key, source, copy) in copies.items():
            row = tables[name][tables[name][key] == source]
            row = row.assign(**{key: copy}).rename(columns={key: "id"})
            row.to_sql(name, connection, index=False)
    return database


def test_a_store_over_sqlite_adds_its_rows_to_the_snapshot_s(
    demo_bundle: Path, tmp_path: Path
) -> None:
    env = {"FEATURES_DB": str(_database(tmp_path))}
    with _container(demo_bundle, "sqlite_store", **env) as container:
        ranked = _rank(container, 9_999, [3, 5_000, 6_000])
    rows = demo.features_of(7, [3, 88, 6_000], "mobile", hour=12, weekday=4)
    rows[:, PAIR_AT] = 0  # user 9999 has met no item
    assert [_scores(ranked)[item] for item in (3, 5_000, 6_000)] == pytest.approx(
        demo.torch_scores("deep_mlp", rows), abs=1e-5
    )
    assert (ranked["degraded"], ranked["unknown"]) == ([], {"user": False, "items": [6_000]})


class Connected(fakes.FakeStore):
    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self._name, self._calls = name, calls

    def connect(self) -> None:
        self._calls.append(self._name)
        if self._name == "inner":
            raise ConnectionRefusedError(111, "Connection refused")


def test_after_a_restore_each_store_of_the_chain_connects_and_a_failure_is_logged(
    log: fakes.LogLines,
) -> None:
    calls: list[str] = []
    factories = [
        lambda _store, _spec: Connected("inner", calls),
        lambda _store, _spec: fakes.FakeStore(),  # has no `connect`
        lambda _store, _spec: Connected("outer", calls),
    ]
    extensions = Extensions(stores=tuple(factories))
    chain = extensions.store_chain(fakes.FakeStore(), fakes.small_spec())
    slot = fakes.slot(replace(fakes.model(store=chain[-1]), stores=chain))
    slot.reconnect()
    assert calls == ["inner", "outer"]
    (line,) = [line for line in log() if line["level"] == "ERROR"]
    assert (line["message"], line["store"]) == ("feature store can't connect", "Connected")
    assert line["reason"] == "ConnectionRefusedError: [Errno 111] Connection refused"


def test_where_sqlite_fails_the_snapshot_serves_and_is_named(
    demo_bundle: Path, tmp_path: Path
) -> None:
    with _container(demo_bundle) as container:
        plain = _rank(container)
    env = {"FEATURES_DB": str(tmp_path / "nothing.db")}
    with _container(demo_bundle, "sqlite_store", **env) as container:
        ranked = _rank(container)
    assert ranked["degraded"] == ["features:snapshot"]
    assert (ranked["predictions"], ranked["unknown"]) == (plain["predictions"], plain["unknown"])


WAITS_UNNOTICED = """
import asyncio

class Store:
    waits = False  # which is not so

    def __init__(self, snapshot):
        self.snapshot = snapshot

    async def fetch(self, query, deadline_s):
        rows = await self.snapshot.fetch(query, deadline_s)
        try:
            await self.wait()
        HANDLING
        return rows

    async def wait(self):
        loop = asyncio.get_event_loop()
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, None)
        await future

STORES = [lambda snapshot, spec: Store(snapshot)]
"""


@pytest.mark.parametrize(
    ("module", "handling", "degraded"),
    [
        ("waits_at_its_end", "finally: await self.wait()", []),
        (
            "catches_all",
            "except BaseException: return rows._replace(degraded=('mine',))",
            ["mine"],
        ),
    ],
)
def test_a_request_that_waits_unnoticed_has_one_record_and_one_log_line(
    demo_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    module: str,
    handling: str,
    degraded: list[str],
) -> None:
    (tmp_path / f"{module}.py").write_text(WAITS_UNNOTICED.replace("HANDLING", handling))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with _container(demo_bundle, module) as container:
            capsys.readouterr()
            ranked = [_rank(container), _rank(container)]
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["degraded"] for each in ranked] == [degraded, []]
    waited = "a request waited: from now on each has an event loop"
    kinds = [line.get("record") or line["message"] for line in lines]
    assert sorted(kinds) == [waited, "decision", "decision", "request", "request"]
    assert [line["status"] for line in lines if line.get("message") == "request"] == [200, 200]


ASYNC_CONNECT = """
class Store:
    waits = False
    async def fetch(self, query, deadline_s): ...
    async def connect(self): ...

STORES = [lambda snapshot, spec: Store()]
"""


@pytest.mark.parametrize("text", ["STORES = [lambda snapshot, spec: None]", ASYNC_CONNECT])
def test_a_store_factory_that_returns_no_store_is_named(
    demo_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: fakes.LogLines,
    text: str,
) -> None:
    (tmp_path / "no_store.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "no_store", raising=False)
    with _container(demo_bundle, "no_store") as container:
        assert container.slot.ready is None
    assert [line["reason"] for line in log() if line["message"] == "model refused"] == [
        f"EXTENSIONS: STORES[0] must return {STORE}"
    ]


# ---- Expressions ---------------------------------------------------------------------------------


@pytest.fixture
def _local_hour() -> None:
    load_extensions_file(EXAMPLES / "local_hour.py")


@pytest.mark.usefixtures("_local_hour")
def test_the_local_hour_is_the_calendars() -> None:
    feature = context.parse("local_hour(America/St_Johns)")  # half an hour beside the others
    start, zone = datetime(2026, 3, 7, tzinfo=UTC), ZoneInfo("America/St_Johns")
    moments = [start + timedelta(minutes=20 * step) for step in range(200)]  # clocks go forward
    expected = [moment.astimezone(zone).hour for moment in moments]
    times = [moment.timestamp() for moment in moments]
    assert [feature.compute({}, time_s) for time_s in times] == expected
    assert feature.compute({}, np.array(times)).tolist() == expected


@pytest.mark.usefixtures("_local_hour")
@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("local_hour(Mars/Olympus)", r"No time zone found with key Mars/Olympus"),
        ("local_hour", r"missing 1 required positional argument: 'zone'"),
        ("local_hour(a, b)", r"takes 1 positional argument but 2 were given"),
        ("local_hour(a(b))", r"its arguments can't be read"),
        ("local_time(a)", r"is none of .*; EXTENSIONS has local_hour"),
    ],
)
def test_a_wrong_use_of_an_expression_is_a_wrong_spec(expression: str, reason: str) -> None:
    features = [{"name": "hour", "source": "context", "expression": expression}]
    with pytest.raises(SpecError, match=reason):
        parse_spec({"inputs": [{"name": "x", "features": features}]})
