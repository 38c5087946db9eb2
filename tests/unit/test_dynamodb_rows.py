"""Rows of DynamoDB against a server that misbehaves: whatever it sends, a request is answered, and
`degraded` says with what."""

import json
import struct
from collections.abc import Callable, Iterator
from math import inf, isnan
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import pytest

import fakes
from feedrank.aws.errors import AwsError
from feedrank.domain import FeatureRows, Query
from feedrank.features import batch_get, stored_rows
from feedrank.features import dynamodb as module
from feedrank.features.dynamodb import DynamoTable
from feedrank.features.live import LiveStore
from feedrank.features.stored_rows import PROBED, StoredRow
from feedrank.http.fast_path import run_through
from scripted import VARIABLES, Answer, Scripted, Sent, scripted
from shelves import (
    ITEM_DEFAULTS,
    NOW_S,
    SNAPSHOT_PAIRS,
    SNAPSHOT_USERS,
    item_row,
    pairs,
    store,
    text,
    user_row,
)

FRESH = str(NOW_S - 30.0)
GET, BATCH = "DynamoDB_20120810.GetItem", "DynamoDB_20120810.BatchGetItem"
Item = dict[str, dict[str, str]]


def _item(key: str, row: bytes, **more: dict[str, str]) -> Item:
    return {"k": {"S": key}, "v": {"B": text(row)}, "t": {"N": FRESH}, **more}


STORED = {
    "u#1": _item("u#1", user_row(5.0), p={"B": text(pairs({7: 0.5}))}),
    "i#7": _item("i#7", item_row(1.0, -1.0)),
    "i#8": _item("i#8", item_row(2.0, -2.0)),
}


def _answer(content: Any) -> Answer:
    body = json.dumps(content).encode()
    return Answer(body=body, headers={"x-amz-crc32": str(crc32(body))})


class FakeTable:
    """What DynamoDB documents of GetItem and BatchGetItem. `spoil` may change an answer."""

    def __init__(self) -> None:
        self.items = dict(STORED)
        self.spoil: Callable[[str, Answer], Answer] = lambda _, answer: answer
        self.unprocessed = 0  # of the keys of each batch, the last ones

    def __call__(self, sent: Sent) -> Answer:
        operation, content = sent.headers["x-amz-target"], json.loads(sent.body)
        if operation == GET:
            assert content["TableName"] == "rows"
            item = self.items.get(content["Key"]["k"]["S"])
            answer = _answer({"Item": item} if item else {})
        else:
            keys = [key["k"]["S"] for key in content["RequestItems"]["rows"]["Keys"]]
            assert len({*keys}) == len(keys) <= 100
            cut = len(keys) - self.unprocessed
            found = [self.items[key] for key in keys[:cut] if key in self.items]
            left = [{"k": {"S": key}} for key in keys[cut:]]
            unprocessed = {"rows": {"Keys": left}} if left else {}
            answer = _answer({"Responses": {"rows": found}, "UnprocessedKeys": unprocessed})
        return self.spoil(operation, answer)


@pytest.fixture(autouse=True)
def _no_late_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may outlive its test, and then logs that the server is gone."""
    monkeypatch.setattr(stored_rows, "_probe", lambda _: None)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def table(server: Scripted) -> FakeTable:
    table = FakeTable()
    server.respond = table
    return table


def _reader(server: Scripted) -> DynamoTable:
    return DynamoTable("rows", {**VARIABLES, "AWS_ENDPOINT_URL": server.url})


def _live(directory: Path, server: Scripted, budget_s: float = 20.0) -> LiveStore:
    return store(directory, _reader(server), budget_s=budget_s)


def _fetch(live: LiveStore, *items: int) -> FeatureRows:
    query = Query(1, list(items), {}, NOW_S)
    return run_through(live.fetch(query, perf_counter() + 60))


def _sources(rows: FeatureRows) -> str:
    assert rows.sources
    return rows.sources.sources


@pytest.mark.usefixtures("table")
def test_rows_are_read_with_their_times_and_pairs(server: Scripted) -> None:
    reader, found = _reader(server), dict[int, StoredRow | None]()
    assert reader.read_user(1, inf) == StoredRow(user_row(5.0), NOW_S - 30.0, pairs({7: 0.5}))
    assert reader.read_user(2, inf) is None
    reader.read_items([7, 9], inf, found)
    assert found == {7: StoredRow(item_row(1.0, -1.0), NOW_S - 30.0), 9: None}
    assert [sent.headers["x-amz-target"] for sent in server.requests] == [GET, GET, BATCH]
    assert {sent.headers["content-type"] for sent in server.requests} == {
        "application/x-amz-json-1.0"
    }


@pytest.mark.usefixtures("table")
def test_a_request_makes_two_calls_side_by_side(server: Scripted, tmp_path: Path) -> None:
    live = _live(tmp_path, server)
    rows = _fetch(live, 7, 8, 7, 50)
    assert (_sources(rows), rows.degraded) == ("ssssu", ())
    assert rows.items[:, 0].tolist() == [1.0, 2.0, 1.0, ITEM_DEFAULTS[0]]
    assert rows.pairs[:, 0].tolist() == [0.5, -4.0, 0.5, -4.0]
    ours = [s.headers["x-amz-target"] for s in server.requests if f"#{PROBED}" not in str(s.body)]
    assert sorted(ours) == [BATCH, GET]


def test_an_expired_row_is_as_if_it_were_not_there(server: Scripted, table: FakeTable) -> None:
    """DynamoDB deletes it only later."""
    table.items["u#1"] = _item("u#1", user_row(5.0), e={"N": "1000"})
    table.items["i#7"] = _item("i#7", item_row(1.0, 1.0), e={"N": "1000"})
    table.items["i#8"] = _item("i#8", item_row(1.0, 1.0), e={"N": str(10 * NOW_S)})
    reader, found = _reader(server), dict[int, StoredRow | None]()
    reader.read_items([7, 8], inf, found)
    assert (reader.read_user(1, inf), found[7], bool(found[8])) == (None, None, True)


def test_unprocessed_keys_are_asked_for_again(
    server: Scripted, table: FakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(batch_get, "sleep", pauses.append)
    table.unprocessed = 1
    numbers = iter([1, 0, 0])

    def fewer(_: str, answer: Answer) -> Answer:
        table.unprocessed = next(numbers, 0)
        return answer

    table.spoil = fewer
    found: dict[int, StoredRow | None] = {}
    _reader(server).read_items([7, 8], inf, found)
    assert sorted(found) == [7, 8]
    assert [json.loads(sent.body)["RequestItems"]["rows"]["Keys"] for sent in server.requests] == [
        [{"k": {"S": "i#7"}}, {"k": {"S": "i#8"}}],
        [{"k": {"S": "i#8"}}],
        [{"k": {"S": "i#8"}}],
    ]
    assert all(0 <= pause <= batch_get.PAUSE_S * 2**at for at, pause in enumerate(pauses))


def test_keys_that_stay_unprocessed_are_failed_and_the_others_used(
    server: Scripted, table: FakeTable, tmp_path: Path, log: fakes.LogLines
) -> None:
    live = _live(tmp_path, server, budget_s=1.0)
    table.unprocessed = 1
    rows = _fetch(live, 7, 8)
    assert rows.items[:, 0].tolist() == [1.0, 208.0]
    assert (_sources(rows), rows.degraded) == ("ssb", ("features:snapshot 1/3",))


def _cut(answer: Answer) -> Answer:
    return Answer(body=answer.body[:-20], headers={})


def _only(operation: str, change: Callable[[Answer], Answer]) -> Callable[[str, Answer], Answer]:
    return lambda of, answer: change(answer) if of == operation else answer


def _error(status: int, code: str) -> Callable[[Answer], Answer]:
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}"}).encode()
    return lambda _: Answer(status, body)


def _of_others(answer: Answer) -> Answer:
    return Answer(body=answer.body.replace(b"#", b"#1"))


FAULTS: dict[str, Callable[[Answer], Answer]] = {
    "throttled": _error(400, "ProvisionedThroughputExceededException"),
    "denied": _error(400, "AccessDeniedException"),
    "table missing": _error(400, "ResourceNotFoundException"),
    "credentials expired": _error(400, "ExpiredTokenException"),
    "failing": _error(500, "InternalServerError"),
    "a proxy's page": lambda _: Answer(503, b"<html>"),
    "hanging": lambda _: Answer(fault="hanging"),
    "closed": lambda _: Answer(fault="closed"),
    "reset": lambda _: Answer(fault="reset"),
    "cut off": lambda answer: Answer(body=answer.body, fault="truncated"),
    "not JSON": _cut,
    "another CRC32": lambda answer: Answer(body=answer.body, headers={"x-amz-crc32": "1"}),
    "a list": lambda _: Answer(body=b"[]"),
    "a number": lambda _: Answer(body=b"1"),
    "rows of other keys": _of_others,
    "no keys": lambda answer: Answer(body=answer.body.replace(b'"k"', b'"x"')),
}


def _budget_s(fault: Callable[[Answer], Answer]) -> float:
    """Long, so that the part without a fault is there in time; only what hangs takes it."""
    return 1.0 if fault is FAULTS["hanging"] else 20.0


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_items_costs_the_items(
    fault: Callable[[Answer], Answer],
    server: Scripted,
    table: FakeTable,
    tmp_path: Path,
    log: fakes.LogLines,
) -> None:
    live = _live(tmp_path, server, _budget_s(fault))
    table.spoil = _only(BATCH, fault)
    rows = _fetch(live, 7, 8)
    assert (_sources(rows), rows.degraded) == ("sbb", ("features:snapshot 2/3",))
    assert (rows.user.tolist(), rows.items[:, 0].tolist()) == ([5.0], [207.0, 208.0])
    assert "feature store failed" in {line["message"] for line in log()}
    table.spoil = lambda _, answer: answer
    assert _sources(_fetch(live, 7, 8)) == "sss"  # the next request is served


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_user_costs_the_user(
    fault: Callable[[Answer], Answer], server: Scripted, table: FakeTable, tmp_path: Path
) -> None:
    live = _live(tmp_path, server, _budget_s(fault))
    table.spoil = _only(GET, fault)
    rows = _fetch(live, 7, 8)
    assert (_sources(rows), rows.degraded) == ("bss", ("features:snapshot 1/3",))
    assert (rows.user.tolist(), rows.items[:, 0].tolist()) == ([SNAPSHOT_USERS[1]], [1.0, 2.0])


@pytest.mark.parametrize(
    "change",
    [
        {"v": {"S": "text"}},
        {"v": "text"},
        {"v": {"B": 1}},
        {"v": {"B": text(struct.pack("<I", 1) + bytes(16))}},
        {"t": {"N": "soon"}},
        {"t": {"N": "NaN"}},
        {"t": {"S": FRESH}},
        {"e": {"N": "soon"}, "t": {}},
    ],
)
def test_one_row_that_is_wrong_costs_one_row(
    change: dict[str, Any], server: Scripted, table: FakeTable, tmp_path: Path
) -> None:
    table.items["i#8"] = STORED["i#8"] | change
    rows = _fetch(_live(tmp_path, server), 7, 8)
    assert (_sources(rows), rows.items[:, 0].tolist()) == ("ssb", [1.0, 208.0])
    assert rows.sources
    assert rows.sources.refused == 1


@pytest.mark.parametrize("name", ["v", "p"])
@pytest.mark.parametrize(
    "value", [None, {"S": "text"}, "text", {"B": 1}, {"B": "!AAA"}, {"B": "é"}, {"B": "A"}]
)
def test_a_user_of_whom_one_part_is_damaged_is_replaced_as_a_whole(
    name: str, value: Any, server: Scripted, table: FakeTable, tmp_path: Path
) -> None:
    """The user of whom the table has the other part alone is another one."""
    table.items["u#1"] = STORED["u#1"] | {name: value}
    rows = _fetch(_live(tmp_path, server), 7)
    assert (_sources(rows), rows.user.tolist()) == ("bs", [SNAPSHOT_USERS[1]])
    assert rows.pairs.tolist() == [[SNAPSHOT_PAIRS[1, 7]]]
    assert rows.sources
    assert rows.sources.refused == 1


def test_a_host_that_nobody_knows_costs_the_rows(tmp_path: Path, log: fakes.LogLines) -> None:
    reader = DynamoTable("rows", {**VARIABLES, "AWS_ENDPOINT_URL": "http://nowhere.invalid"})
    rows = _fetch(store(tmp_path, reader), 7)
    assert (_sources(rows), rows.degraded) == ("bb", ("features:snapshot 2/2",))
    assert any("nowhere.invalid" in line["reason"] for line in log())


def test_an_access_that_is_denied_names_the_right_that_is_missing(
    server: Scripted, table: FakeTable
) -> None:
    table.spoil = lambda _, __: _error(400, "AccessDeniedException")(Answer())
    for read, right in (
        (lambda: _reader(server).read_user(1, inf), "dynamodb:GetItem"),
        (lambda: _reader(server).read_items([1], inf, {}), "dynamodb:BatchGetItem"),
    ):
        with pytest.raises(AwsError, match=right):
            read()


def test_a_time_that_is_no_number_is_none() -> None:
    for value in ({}, 1, None, {"N": None}, {"N": "x"}, {"S": "1"}):
        assert isnan(module._number(value))
