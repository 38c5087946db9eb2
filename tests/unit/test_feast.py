"""Feast's rows from a server that has what the SDK wrote (`tests/feast_store/rows.json`), and from
one that misbehaves."""

import json
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from safetensors.numpy import save

import fakes
import feast_rows
from feast_rows import CODES, EVENT_S, ITEMS, PROJECT, TABLES, USERS
from feedrank.aws.errors import AwsError
from feedrank.domain import FeatureRows, Query
from feedrank.errors import SpecError
from feedrank.features import feast as module
from feedrank.features.feast import FeastTables, ViewTable
from feedrank.features.feast_rows import feast_layout
from feedrank.features.feast_views import FeastView
from feedrank.features.live import LiveStore
from feedrank.features.live_rows import LiveLimits
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.features.stored_rows import PROBED
from feedrank.http.fast_path import run_through
from scripted import VARIABLES, Answer, Scripted, Sent, scripted

NOW_S = EVENT_S + 5 * 3_600.0
KINDS = ("f32", "f64", "i32", "i64", "flag")
DEFAULTS = {name: -1.0 - at for at, name in enumerate(KINDS)}
AS_OF_S = NOW_S - 60.0
NUMBER = "more_of_users"


def _spec(**changes: Any) -> FeatureSpec:
    """A user of all kinds, some as whole numbers, and items of two."""
    values = [{"name": f"u_{kind}", "source": "user", "default": DEFAULTS[kind]} for kind in KINDS]
    more = {"name": "u_more", "source": "user", "default": -9.0}
    made = {"name": "u_made", "source": "user", "expression": "since(made)"}
    whole = {"name": "u_whole", "source": "user", "default": -7}
    items = [{"name": f"i_{kind}", "source": "item", "default": DEFAULTS[kind]} for kind in KINDS]
    pair = {"name": "p", "source": "pair", "default": -4.0}
    features = {f"u_{kind}": f"of_users:{kind}" for kind in KINDS}
    features |= {"u_more": f"{NUMBER}:more", "u_made": "of_users:made", "u_whole": "of_users:i64"}
    views = {"of_users": {"join_key": "user_id"}, NUMBER: {"join_key": "user_id"}}
    data: dict[str, Any] = {
        "inputs": [
            {"name": "x", "features": [*values, more, made, *items, pair]},
            {"name": "n", "type": "int64", "per": "request", "features": [whole]},
        ],
        "feast": {
            "views": views | {"of_items": {"join_key": "item_id", "join_key_type": "string"}},
            "features": features | {f"i_{kind}": f"of_items:{kind}" for kind in KINDS},
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = data["feast"]
        for parent in parents:
            place = place[parent]
        place[last] = value
    return parse_spec(data)


SPEC = _spec()


class FakeFeast:
    """What DynamoDB documents of BatchGetItem, with rows of `tables`. `spoil` may change an
    answer."""

    def __init__(self) -> None:
        self.tables = {name: dict(items) for name, items in TABLES.items()}
        self.spoil: Callable[[Answer], Answer] = lambda answer: answer
        self.unprocessed = 0  # of the keys of each table, the last ones

    def __call__(self, sent: Sent) -> Answer:
        assert sent.headers["x-amz-target"] == "DynamoDB_20120810.BatchGetItem"
        responses, unprocessed, asked = {}, {}, 0
        for name, request in json.loads(sent.body)["RequestItems"].items():
            keys = [key["entity_id"]["S"] for key in request["Keys"]]
            assert len({*keys}) == len(keys)
            asked += len(keys)
            cut = len(keys) - self.unprocessed
            table = self.tables[name]
            responses[name] = [
                _projected(table[key], request) for key in keys[:cut] if key in table
            ]
            if keys[cut:]:
                left = [{"entity_id": {"S": key}} for key in keys[cut:]]
                unprocessed[name] = {**request, "Keys": left}
        assert asked <= 100
        body = json.dumps({"Responses": responses, "UnprocessedKeys": unprocessed}).encode()
        return self.spoil(Answer(body=body, headers={"x-amz-crc32": str(crc32(body))}))


def _projected(item: Any, request: Any) -> Any:
    names = request["ExpressionAttributeNames"]
    paths = [part.split(".") for part in request["ProjectionExpression"].split(",")]
    attributes = {names[path[0]] for path in paths}
    features = {names[path[1]] for path in paths if len(path) > 1}
    kept = {name: value for name, value in item.items() if name in attributes}
    if isinstance(kept.get("values"), dict) and isinstance(kept["values"].get("M"), dict):
        values = kept["values"]["M"]
        kept["values"] = {"M": {n: v for n, v in values.items() if n in features}}
    return kept


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def tables(server: Scripted) -> FakeFeast:
    server.respond = tables = FakeFeast()
    return tables


@pytest.fixture
def users_alone(tmp_path: Path, server: Scripted) -> LiveStore:
    return _live(tmp_path, server, reads_items=False)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time", lambda: NOW_S)


def _snapshot(directory: Path, spec: FeatureSpec = SPEC) -> SnapshotStore:
    """Of the users and items 1 and 9, each cell the id and a hundredth."""
    ids = np.array([1, 9], np.int64)
    texts = spec.ids == "text"
    arrays = {
        "users.ids": ids,
        "users.values": np.repeat(ids[:, np.newaxis] + 0.01, 6, 1).astype(np.float32),
        "users.integers": ids[:, np.newaxis].astype(np.int64),
        "users.times": np.full((2, 1), AS_OF_S),
        "items.ids": ids,
        "items.values": np.repeat(ids[:, np.newaxis] + 0.01, 5, 1).astype(np.float32),
        "pairs.users": ids,
        "pairs.starts": np.array([0, 1, 2], np.int64),
        "pairs.items": ids,
        "pairs.values": np.full((2, 1), 0.5, np.float32),
    }
    assert not texts
    path = directory / "features.safetensors"
    path.write_bytes(save(arrays))
    return SnapshotStore(path, spec, AS_OF_S)


def _reader(server: Scripted, spec: FeatureSpec = SPEC, *, reads_items: bool = True) -> FeastTables:
    variables = {**VARIABLES, "AWS_ENDPOINT_URL": server.url}
    return FeastTables(PROJECT, spec, variables, reads_items=reads_items)


def _live(
    directory: Path, server: Scripted, spec: FeatureSpec = SPEC, budget_s: float = 20.0, **more: Any
) -> LiveStore:
    more = {"reads_items": True} | more
    limits = LiveLimits(budget_s, 1_000_000, 60.0, more.pop("max_age_s", inf))
    return LiveStore(
        _reader(server, spec, reads_items=more["reads_items"]),
        _snapshot(directory, spec),
        spec,
        limits,
        lambda: NOW_S,
        layout_of=feast_layout,
        sends_texts=True,
        **more,
    )


def _fetch(live: LiveStore, user: int, *items: int) -> FeatureRows:
    return run_through(live.fetch(Query(user, list(items), {}, NOW_S), perf_counter() + 60))


def _asked(server: Scripted) -> list[dict[str, Any]]:
    """What requests have asked for: not what the first connections are for."""
    views = FeastView("", "user_id", "int64", 0.0), FeastView("", "item_id", "string", 0.0)
    probes = {key for view in views for key in ViewTable(PROJECT, view, []).entity_ids([PROBED])}
    contents = [json.loads(sent.body)["RequestItems"] for sent in server.requests]
    return [
        content
        for content in contents
        if not {key["entity_id"]["S"] for each in content.values() for key in each["Keys"]} & probes
    ]


def _sources(rows: FeatureRows) -> str:
    assert rows.sources
    return rows.sources.sources


# ---- The SDK's truth -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "join_key", "type_"),
    [(USERS, "user_id", "int64"), (ITEMS, "item_id", "string"), (CODES, "code", "int32")],
)
def test_keys_are_the_sdks(answer: Any, join_key: str, type_: Any) -> None:
    table = ViewTable(PROJECT, FeastView("of", join_key, type_, 0.0), ["f32"])
    ids = answer["ids"]
    assert table.entity_ids(ids) == dict(zip(answer["keys"], ids, strict=True))


@pytest.mark.usefixtures("tables")
def test_a_users_cells_are_the_sdks_answers(server: Scripted, tmp_path: Path) -> None:
    live = _live(tmp_path, server)
    for at, user in enumerate(USERS["ids"]):
        rows = _fetch(live, user, 1)
        told = {name: values[at] for name, values in USERS["values"].items()}
        expected = [
            DEFAULTS[kind] if told[f"of_users:{kind}"] is None else float(told[f"of_users:{kind}"])
            for kind in KINDS
        ] + [-9.0 if told[f"{NUMBER}:more"] is None else told[f"{NUMBER}:more"]]
        assert rows.user == pytest.approx(expected, rel=1e-6)
        whole = told["of_users:i64"]
        assert rows.others["user", "integers"].tolist() == [-7 if whole is None else whole]
        made = told["of_users:made"]
        assert np.array_equal(
            rows.others["user", "times"], [nan if made is None else made], equal_nan=True
        )
        is_there = any(value is not None for value in told.values())
        assert (rows.unknown_user, _sources(rows)[0]) == (not is_there, "s" if is_there else "u")
    assert rows.unknown_user  # the last one


@pytest.mark.usefixtures("tables")
def test_items_cells_are_the_sdks_answers(server: Scripted, tmp_path: Path) -> None:
    found: dict[Any, Any] = {}
    _reader(server).read_items(ITEMS["ids"], inf, found)
    assert found.pop("?") is None
    rows, reasons = feast_layout(SPEC, "item").unpack([found[id_].row for id_ in ITEMS["ids"][:-1]])
    assert reasons == [""] * 5
    for at, kind in enumerate(KINDS):
        for row, (_, _, told) in zip(
            rows, feast_rows.answers(ITEMS, f"of_items:{kind}"), strict=False
        ):
            expected = DEFAULTS[kind] if told is None else float(told)
            assert row["values"][at] == pytest.approx(expected, rel=1e-6)
    assert found["a"].time_s == pytest.approx(EVENT_S)


# ---- A request -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tables")
def test_one_call_a_source_and_only_for_what_is_read(server: Scripted, tmp_path: Path) -> None:
    live = _live(tmp_path, server)
    rows = _fetch(live, 7, 7, 1, 7)
    assert (_sources(rows), rows.degraded) == ("ssus", ())
    user, items = sorted(_asked(server), key=len, reverse=True)
    assert ({*user}, {*items}) == (
        {f"{PROJECT}.of_users", f"{PROJECT}.{NUMBER}"},
        {f"{PROJECT}.of_items"},
    )
    names = items[f"{PROJECT}.of_items"]["ExpressionAttributeNames"].values()
    assert sorted(names) == sorted(["entity_id", "event_ts", "values", *KINDS])
    assert len(items[f"{PROJECT}.of_items"]["Keys"]) == 2
    _fetch(live, 7, 7, 1)
    assert len(_asked(server)) == 3  # items come from the cache


@pytest.mark.usefixtures("tables")
def test_pairs_are_the_snapshots(server: Scripted, tmp_path: Path) -> None:
    live = _live(tmp_path, server)
    assert _fetch(live, 1, 1, 9).pairs.tolist() == [[0.5], [-4.0]]
    assert _fetch(live, 5, 1).pairs.tolist() == [[-4.0]]


@pytest.mark.usefixtures("tables")
def test_users_alone_leave_items_to_the_snapshot(server: Scripted, tmp_path: Path) -> None:
    rows = _fetch(_live(tmp_path, server, reads_items=False), 1, 9, 1)
    assert rows.items[:, 0].tolist() == pytest.approx([9.01, 1.01])
    assert (_sources(rows), rows.user[0]) == ("s", 0.5)
    names = {name for sent in server.requests for name in json.loads(sent.body)["RequestItems"]}
    assert names == {f"{PROJECT}.of_users", f"{PROJECT}.{NUMBER}"}


@pytest.mark.usefixtures("tables")
def test_rows_past_their_time_to_live_are_not_there(server: Scripted, tmp_path: Path) -> None:
    """User 7's row of the second view is three days older than the others: the SDK serves it."""
    assert USERS["values"][f"{NUMBER}:more"][1] == 2.5
    days = {"join_key": "user_id", "ttl_s": 2 * 86_400}
    live = _live(tmp_path, server, _spec(**{f"views__{NUMBER}": days}))
    assert [_fetch(live, user, 1).user[5] for user in (1, 7)] == [1.5, -9.0]
    hour = {"join_key": "user_id", "ttl_s": 3_600}
    changes = {f"views__{NUMBER}": hour, "views__of_users": hour}
    rows = _fetch(_live(tmp_path, server, _spec(**changes)), 1, 1)
    assert (rows.unknown_user, _sources(rows)[0], rows.degraded) == (True, "u", ())
    assert rows.user.tolist() == [*DEFAULTS.values(), -9.0]


@pytest.mark.usefixtures("tables")
def test_a_row_is_as_old_as_its_oldest_view(server: Scripted, tmp_path: Path) -> None:
    reader = _reader(server)
    times_s = [row.time_s for user in (1, 7) if (row := reader.read_user(user, inf))]
    assert times_s == pytest.approx([EVENT_S, EVENT_S - 3 * 86_400])
    live = _live(tmp_path, server, max_age_s=86_400.0)
    assert [_sources(_fetch(live, user, 1))[0] for user in (1, 7)] == ["s", "d"]


def test_an_id_that_the_join_keys_type_cannot_hold_is_unknown(
    server: Scripted, tables: FakeFeast
) -> None:
    spec = _spec(
        views__of_items={"join_key": "code", "join_key_type": "int32"},
        **{f"features__i_{kind}": "of_items:f32" for kind in KINDS},
    )
    tables.tables[f"{PROJECT}.of_items"] = tables.tables[f"{PROJECT}.of_codes"]
    found: dict[Any, Any] = {}
    _reader(server, spec).read_items([2**31, 2**31 - 1, 2**63 - 1], inf, found)
    assert {id_: bool(row) for id_, row in found.items()} == {
        2**31: False,
        2**31 - 1: True,
        2**63 - 1: False,
    }
    server.requests.clear()
    _reader(server, spec).read_items([2**31], inf, found)
    assert server.requests == []


def test_a_hundred_keys_of_all_views_are_one_call(server: Scripted, tables: FakeFeast) -> None:
    """Two views of items: fifty items a call."""
    views = {"of_items": {"join_key": "item_id"}, "more": {"join_key": "item_id"}}
    users = {"of_users": {"join_key": "user_id"}, NUMBER: {"join_key": "user_id"}}
    spec = _spec(views=users | views, features__i_flag="more:flag")
    tables.tables[f"{PROJECT}.more"] = {}
    reader, found = _reader(server, spec), dict[Any, Any]()
    assert reader.max_keys == 50
    reader.read_items([*range(50)], inf, found)
    assert found == dict.fromkeys(range(50))


def test_unprocessed_keys_are_asked_for_again(
    server: Scripted, tables: FakeFeast, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feedrank.features import batch_get

    pauses: list[float] = []
    monkeypatch.setattr(batch_get, "sleep", pauses.append)
    left = iter([2, 1, 0, 0])

    def fewer(answer: Answer) -> Answer:
        tables.unprocessed = next(left)
        return answer

    tables.spoil, tables.unprocessed = fewer, 3
    found: dict[Any, Any] = {}
    _reader(server).read_items(ITEMS["ids"], inf, found)
    assert {id_: bool(row) for id_, row in found.items()} == {
        id_: id_ != "?" for id_ in ITEMS["ids"]
    }
    requests = [json.loads(sent.body)["RequestItems"] for sent in server.requests]
    assert [len(request[f"{PROJECT}.of_items"]["Keys"]) for request in requests] == [6, 3, 2, 1]
    assert len({json.dumps(r[f"{PROJECT}.of_items"] | {"Keys": 0}) for r in requests}) == 1
    assert all(0 <= pause <= batch_get.PAUSE_S * 2**at for at, pause in enumerate(pauses))


def test_a_user_of_whom_one_view_stays_unprocessed_is_failed(
    server: Scripted, tables: FakeFeast, tmp_path: Path, log: fakes.LogLines
) -> None:
    live = _live(tmp_path, server, budget_s=0.2, reads_items=False)

    def only_one_view(answer: Answer) -> Answer:
        content = json.loads(answer.body)
        name = f"{PROJECT}.{NUMBER}"
        keys = [{"entity_id": item["entity_id"]} for item in content["Responses"].pop(name, [])]
        if keys:
            content["UnprocessedKeys"][name] = {"Keys": keys}
        return Answer(body=json.dumps(content).encode())

    tables.spoil = only_one_view
    rows = _fetch(live, 1, 1)
    assert (_sources(rows), rows.degraded) == ("b", ("features:snapshot 1/1",))
    assert "feature store failed" in {line["message"] for line in log()}


def test_text_ids_are_read_by_their_texts(server: Scripted, tables: FakeFeast) -> None:
    """The cache and the snapshot have their keys."""
    feature = {"name": "i", "source": "item", "default": -1.0}
    who = {"name": "u", "source": "user", "default": -2.0}
    views = {"of_items": {"join_key": "item_id"}, "users": {"join_key": "item_id"}}
    data = {
        "inputs": [{"name": "x", "features": [feature, who]}],
        "ids": "text",
        "feast": {"views": views, "features": {"i": "of_items:f32", "u": "users:f64"}},
    }
    spec = parse_spec(data)
    tables.tables[f"{PROJECT}.users"] = tables.tables[f"{PROJECT}.of_items"]
    snapshot: Any = SimpleNamespace(as_of_s=AS_OF_S)  # which is not asked
    live = LiveStore(
        _reader(server, spec),
        snapshot,
        spec,
        LiveLimits(20.0, 1_000_000, 60.0),
        lambda: NOW_S,
        reads_items=True,
        layout_of=feast_layout,
        sends_texts=True,
    )
    told = dict(zip(ITEMS["ids"], ITEMS["values"]["of_items:f32"], strict=True))
    expected = [-1.0 if told[id_] is None else told[id_] for id_ in ITEMS["ids"]]
    for sources in ("ssssssu", "scccccu"):
        query = Query("film-1", ITEMS["ids"], {}, NOW_S)
        rows = run_through(live.fetch(query, perf_counter() + 60))
        assert (_sources(rows), rows.degraded) == (sources, ())
        assert rows.items[:, 0].tolist() == pytest.approx(expected, rel=1e-6)
        assert rows.user.tolist() == [ITEMS["values"]["of_items:f64"][1]]
        assert rows.unknown_items.tolist() == [False] * 5 + [True]


# ---- What can be wrong ---------------------------------------------------------------------------


def _error(code: str) -> Callable[[Answer], Answer]:
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}"}).encode()
    return lambda _: Answer(400, body)


def _with(body: bytes) -> Callable[[Answer], Answer]:
    return lambda _: Answer(body=body)


def _replaced(old: bytes, new: bytes) -> Callable[[Answer], Answer]:
    return lambda answer: Answer(body=answer.body.replace(old, new))


FAULTS: dict[str, Callable[[Answer], Answer]] = {
    "throttled": _error("ProvisionedThroughputExceededException"),
    "denied": _error("AccessDeniedException"),
    "table missing": _error("ResourceNotFoundException"),
    "hanging": lambda _: Answer(fault="hanging"),
    "reset": lambda _: Answer(fault="reset"),
    "cut off": lambda answer: Answer(body=answer.body, fault="truncated"),
    "another CRC32": lambda answer: Answer(body=answer.body, headers={"x-amz-crc32": "1"}),
    "a list": _with(b"[]"),
    "a list of responses": _with(b'{"Responses": []}'),
    "responses of numbers": _replaced(b": [{", b": [1, {"),
    "no keys": _replaced(b'"entity_id"', b'"x"'),
    "keys that are numbers": _replaced(b'{"S":', b'{"N":'),
    "rows of other keys": _replaced(b'"S": "', b'"S": "0'),
    "an item twice": lambda answer: Answer(body=_doubled(answer.body)),
    "keys of nobody left": _replaced(
        b'"UnprocessedKeys": {}',
        b'"UnprocessedKeys": {"kinds.of_users": {"Keys": [{"entity_id": {"S": "x"}}]}}',
    ),
}


def _doubled(body: bytes) -> bytes:
    content = json.loads(body)
    content["Responses"] = {name: 2 * items for name, items in content["Responses"].items()}
    return json.dumps(content).encode()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_costs_the_rows_and_no_more(
    fault: Callable[[Answer], Answer],
    server: Scripted,
    tables: FakeFeast,
    tmp_path: Path,
    log: fakes.LogLines,
) -> None:
    live = _live(tmp_path, server, budget_s=0.2, reads_items=False)
    tables.spoil = fault
    rows = _fetch(live, 1, 1)
    assert (_sources(rows), rows.degraded) == ("b", ("features:snapshot 1/1",))
    assert rows.user[0] == pytest.approx(1.01)
    assert "feature store failed" in {line["message"] for line in log()}
    tables.spoil = lambda answer: answer
    live._reads._budget_s = 20.0  # 0.2 s may be short for a good answer
    assert _sources(_fetch(live, 1, 1)) == "s"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a text": ({"values": {"M": {"f32": {"B": "EgFh"}}}}, "of_users:f32: type"),
    "a list": ({"values": {"M": {"f32": {"B": "ggEKCggAAIA/AAAAQA=="}}}}, "of_users:f32: type"),
    "a fraction": ({"values": {"M": {"i64": {"B": "NQAAAD8="}}}}, "of_users:i64: type"),
    "a time": ({"values": {"M": {"f32": {"B": "QODD/9cG"}}}}, "of_users:f32: type"),
    "cut off": ({"values": {"M": {"f32": {"B": "NQAA"}}}}, "of_users:f32: type"),
    "not base64": ({"values": {"M": {"f32": {"B": "?"}}}}, "of_users:f32: encoding"),
    "not Binary": ({"values": {"M": {"f32": {"S": "NQAAAD8="}}}}, "of_users:f32: isn't in the row"),
    "NaN": ({"values": {"M": {"f32": {"B": "NQAAwH8="}}}}, "not a number"),
    "infinity": ({"values": {"M": {"f32": {"B": "NQAAgH8="}}}}, "not a number"),
    "beyond float32": ({"values": {"M": {"f64": {"B": "KZx1AIg85Dd+"}}}}, "not a number"),
    "a time of event that is none": ({"event_ts": {"S": "soon"}}, "time"),
    "no time of event": ({"event_ts": {"N": "1"}}, "time"),
    "an event of the year 9000": ({"event_ts": {"S": "9000-01-01 00:00:00+00:00"}}, "time"),
    "another attribute": ({"values": {"S": "x"}}, "of_users:made: isn't in the row"),
    "an empty map": ({"values": {"M": []}}, "of_users:made: encoding"),
}


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_one_row_that_is_wrong_costs_one_row(
    change: dict[str, Any],
    reason: str,
    tables: FakeFeast,
    users_alone: LiveStore,
    log: fakes.LogLines,
) -> None:
    key = USERS["keys"][0]
    item = json.loads(json.dumps(TABLES[f"{PROJECT}.of_users"][key]))
    for name, value in change.items():
        if isinstance(value.get("M"), dict):
            item[name]["M"] |= value["M"]
        else:
            item[name] = value
    tables.tables[f"{PROJECT}.of_users"][key] = item
    rows = _fetch(users_alone, 1, 1)
    assert (_sources(rows), rows.user[0]) == ("b", pytest.approx(1.01))
    assert rows.sources
    assert rows.sources.refused == 1
    refusals = [line for line in log() if line["message"] == "feature row refused"]
    assert [line["reason"] for line in refusals] == [reason]


def test_a_wrong_row_among_many_is_the_only_one(server: Scripted, tables: FakeFeast) -> None:
    layout = feast_layout(SPEC, "item")
    found: dict[Any, Any] = {}
    _reader(server).read_items(ITEMS["ids"][:5], inf, found)
    good = [found[id_].row for id_ in ITEMS["ids"][:5]]
    truth, _ = layout.unpack(good)
    for wrong, reason in [
        ({"f32": {"B": "EgFh"}}, "of_items:f32: type"),
        ({"f32": {"B": "NQAAwH8="}}, "not a number"),
        ({"f32": {"B": "?"}}, "of_items:f32: encoding"),
        (None, "of_items:f32: isn't in the row"),
    ]:
        values = dict(good[2][0])
        if wrong is None:
            del values["f32"]
        else:
            values |= wrong
        rows, reasons = layout.unpack([*good[:2], (values,), *good[3:]])
        assert reasons == ["", "", reason, "", ""]
        at = [0, 1, 3, 4]
        assert np.array_equal(rows["values"][at], truth["values"][at])


def test_an_access_that_is_denied_names_the_right_that_is_missing(
    server: Scripted, tables: FakeFeast
) -> None:
    tables.spoil = _error("AccessDeniedException")
    with pytest.raises(AwsError, match="dynamodb:BatchGetItem"):
        _reader(server).read_user(1, inf)


# ---- The spec ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entity_key_serialization_version": 2}, "entity_key_serialization_version is 2"),
        ({"entity_key_serialization_version": "3"}, "entity_key_serialization_version is '3'"),
        ({"table_name_template": "{table_name}"}, "table_name_template is '{table_name}'"),
        ({"views__of_users": {"join_key": "u", "ttl": 1}}, "of_users: unknown key ttl"),
        ({"views__of_users": {}}, "of_users: lacks join_key"),
        ({"views__of_users": {"join_key": ["a", "b"]}}, "join_key: must be a text"),
        ({"views__of_users": {"join_key": "u", "ttl_s": -1}}, "ttl_s: must be a number from 0"),
        (
            {"views__of_users": {"join_key": "u", "join_key_type": "bytes"}},
            "join_key_type: must be",
        ),
        ({"views__spare": {"join_key": "u"}}, "feast.views.spare: no feature is read from it"),
        ({"features__u_f32": "f32"}, "u_f32: must be a text"),
        ({"features__u_f32": "a:b:c"}, "u_f32: must be a text"),
        ({"features__u_f32": "nowhere:f32"}, "u_f32: feast.views lacks 'nowhere'"),
        ({"features__u_f32": "of_items:f32"}, "'of_items' is a view of users and of items"),
        ({"features__p": "of_users:p"}, "features.p: no feature of a user or an item"),
        ({"features__x": "of_users:p"}, "features.x: no feature of a user or an item"),
        ({"store": "dynamodb"}, "unknown key store"),
    ],
)
def test_what_is_not_read_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        _spec(**changes)
    assert message in str(refused.value)


def test_a_list_is_refused_by_name() -> None:
    vector = {"name": "v", "source": "item", "size": 2}
    feast = {"views": {"of": {"join_key": "item_id"}}, "features": {"v": "of:v"}}
    with pytest.raises(SpecError, match=r"feast\.features\.v: is a list"):
        parse_spec({"inputs": [{"name": "x", "features": [vector]}], "feast": feast})


def test_text_ids_have_keys_that_are_texts() -> None:
    feast = {"views": {"of": {"join_key": "item_id"}}, "features": {"a": "of:a"}}
    data = {
        "inputs": [{"name": "x", "features": [{"name": "a", "source": "item"}]}],
        "ids": "text",
        "feast": feast,
    }
    assert parse_spec(data).to_json()["feast"] == feast
    feast["views"]["of"]["join_key_type"] = "int64"
    with pytest.raises(SpecError, match="join_key_type is int64"):
        parse_spec(data)


def test_every_feature_of_a_source_is_mapped_or_none() -> None:
    data = _spec().to_json()
    del data["feast"]["features"]["i_f32"]
    spec = parse_spec(data)  # items may be the snapshot's
    FeastTables(PROJECT, spec, VARIABLES, reads_items=False)
    with pytest.raises(SpecError, match=r"lacks 'i_f32'.*users:feast://"):
        FeastTables(PROJECT, spec, VARIABLES, reads_items=True)
    with pytest.raises(SpecError, match="lacks 'i_f32'"):
        feast_layout(spec, "item")
    with pytest.raises(SpecError, match='has no "feast"'):
        feast_layout(parse_spec({k: v for k, v in data.items() if k != "feast"}), "user")


def test_a_project_too_long_for_a_table_is_refused() -> None:
    with pytest.raises(SpecError, match="can't be a table"):
        FeastTables("p" * 250, SPEC, VARIABLES, reads_items=True)


def test_a_wide_view_is_read_whole(server: Scripted) -> None:
    """DynamoDB refuses an expression of more than 4 KB."""
    view = FeastView("of", "user_id", "int64", 0.0)
    for names, is_projected in ((200, True), (201, False)):
        keys = ViewTable(PROJECT, view, [f"f{at}" for at in range(names)]).keys(["k"])
        assert bool(keys.projection) == is_projected
        assert len(keys.projection.get("ProjectionExpression", "")) < 4_096
