"""Rows that `feedrank features load` writes into DynamoDB, by moto's HTTP server, and what the
function ranks with them: what torch gives for the plain tables."""

import json
import re
import struct
import time
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import demo
import fakes
from feedops.cli.main import app
from feedops.errors import OperationError
from feedops.features import load as module
from feedops.features.load import PROGRESS, Pace, bundle_spec, moment, rows_of
from feedops.features.local_table import fill_table
from feedops.features.table import FeatureTable, WrittenRow
from feedrank.features.packed_rows import RowLayout
from live_requests import ranked

URI = "dynamodb://rows"
AS_OF = "2026-11-20T00:00:00Z"
AS_OF_S = moment(AS_OF)
FEW_USERS, FEW_ITEMS = 40, 60
ROWS = FEW_USERS + FEW_ITEMS
BODY = {
    "user_id": 7,
    "item_ids": [*range(1, 40), 1001, 88, 5_000, 88],
    "context": {"device": "mobile", "timestamp": "2026-11-20T12:00:00Z"},
}


@pytest.fixture
def dynamodb(aws_server: str) -> Any:
    client = boto3.client("dynamodb")
    client.create_table(
        TableName="rows",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return client


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("live") / "tables"
    demo.write_features(directory, demo.demo_spec())
    return directory


@pytest.fixture(scope="module")
def few(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty users and sixty items, to load and load again."""
    directory = tmp_path_factory.mktemp("few")
    for name, rows in (("users", FEW_USERS), ("items", FEW_ITEMS), ("pairs", demo.PAIRS)):
        table = pd.read_parquet(tables / f"{name}.parquet").head(rows)
        if name == "pairs":
            table = table[table["user_id"] <= FEW_USERS]
        table.to_parquet(directory / f"{name}.parquet", index=False)
    return directory


def _load(tables: Path, bundle: Path, *more: str, exit_code: int = 0) -> str:
    arguments = ["--from", str(tables), "--to", URI, "--bundle", str(bundle), "--as-of", AS_OF]
    speed = ["--writes-per-second", "1000000"]
    result = CliRunner().invoke(app, ["features", "load", *arguments, *speed, *more])
    assert result.exit_code == exit_code, result.output
    return result.output


def _scores(response: Any) -> list[tuple[int, float]]:
    return [(each["item_id"], each["score"]) for each in response["predictions"]]


@pytest.mark.parametrize("scheme", ["", "users:"])
@pytest.mark.usefixtures("dynamodb")
def test_scores_are_torchs_and_the_snapshots(
    scheme: str, tables: Path, demo_bundle: Path, log: fakes.LogLines
) -> None:
    _load(tables, demo_bundle, *["--users-alone"] * bool(scheme))
    live, snapshot = ranked(demo_bundle, BODY, FEATURES_URI=scheme + URI), ranked(demo_bundle, BODY)
    assert (live["degraded"], live["unknown"]) == ([], {"user": False, "items": [5_000]})
    assert [item for item, _ in _scores(live)] == [item for item, _ in _scores(snapshot)]
    assert [score for _, score in _scores(live)] == pytest.approx(
        [score for _, score in _scores(snapshot)], abs=1e-6
    )
    rows = demo.features_of(7, BODY["item_ids"], "mobile", hour=12, weekday=4)
    expected = sorted(demo.torch_scores("deep_mlp", rows), reverse=True)
    assert [score for _, score in _scores(live)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("dynamodb")
def test_a_row_that_changes_changes_the_scores_and_nothing_else_does(
    tables: Path, demo_bundle: Path, dynamodb: Any
) -> None:
    _load(tables, demo_bundle)
    body = BODY | {"item_ids": [1, 2]}
    before = dict(_scores(ranked(demo_bundle, body, FEATURES_URI=URI)))
    rows = {row.key: row for row in rows_of(bundle_spec(demo_bundle), tables, users_alone=False)}
    dynamodb.update_item(
        TableName="rows",
        Key={"k": {"S": "i#1"}},
        UpdateExpression="SET v = :v",
        ExpressionAttributeValues={":v": {"B": rows["i#300"].row}},
    )
    after = dict(_scores(ranked(demo_bundle, body, FEATURES_URI=URI)))
    assert (after[2], after[1] != before[1]) == (before[2], True)
    expected = demo.features_of(7, [300], "mobile", hour=12, weekday=4)
    expected[0, 13] = demo.features_of(7, [1], "mobile", hour=12, weekday=4)[0, 13]  # the pair
    assert after[1] == pytest.approx(demo.torch_scores("deep_mlp", expected)[0], abs=1e-5)


@pytest.mark.usefixtures("aws_server")
def test_without_the_table_the_snapshot_answers_and_says_so(
    demo_bundle: Path, printed: fakes.LogLines
) -> None:
    response = ranked(demo_bundle, BODY, FEATURES_URI=URI)
    rows, items = len(BODY["item_ids"]) + 1, len(BODY["item_ids"])
    assert response["degraded"] == [
        f"features:snapshot {rows - 1}/{rows}",
        f"features:defaults 1/{rows}",
    ]
    assert _scores(response) == _scores(ranked(demo_bundle, BODY))
    lines = printed()
    (record,) = [line for line in lines if line.get("row_sources")]
    assert record["row_sources"]["sources"].count("b") == items
    (request,) = [line for line in lines if line.get("RowsFromSnapshot")]
    assert (request["RowsFromSnapshot"], request["RowsFromDefaults"]) == (items, 1)
    assert "ResourceNotFoundException" in {
        line["reason"].split(":")[0]
        for line in lines
        if line.get("message") == "feature store failed"
    }


# ---- Loading -------------------------------------------------------------------------------------


def test_a_load_writes_each_row_and_says_so(few: Path, demo_bundle: Path, dynamodb: Any) -> None:
    told = _load(few, demo_bundle)
    assert f"{ROWS:,}" in told
    assert dynamodb.scan(TableName="rows", Select="COUNT")["Count"] == ROWS
    assert not (few / PROGRESS).exists()
    item = dynamodb.get_item(TableName="rows", Key={"k": {"S": "i#8"}})["Item"]
    assert item.keys() == {"k", "v", "t"}
    assert float(item["t"]["N"]) == AS_OF_S
    item = dynamodb.get_item(TableName="rows", Key={"k": {"S": "u#7"}})["Item"]
    assert item.keys() == {"k", "v", "t", "p"}


def test_a_newer_row_stays_and_an_older_one_is_replaced(
    few: Path, demo_bundle: Path, dynamodb: Any
) -> None:
    for key, time_s in (("i#1", AS_OF_S + 1), ("i#2", AS_OF_S), ("i#3", AS_OF_S - 1)):
        dynamodb.put_item(
            TableName="rows", Item={"k": {"S": key}, "v": {"B": b"x"}, "t": {"N": str(time_s)}}
        )
    _load(few, demo_bundle, exit_code=1)  # i#2 is another row of the same time
    values = {
        key: dynamodb.get_item(TableName="rows", Key={"k": {"S": key}})["Item"]["v"]["B"]
        for key in ("i#1", "i#2", "i#3")
    }
    assert (values["i#1"], values["i#2"], values["i#3"] == b"x") == (b"x", b"x", False)


@pytest.mark.usefixtures("dynamodb")
def test_a_load_that_was_stopped_goes_on_where_it_was(
    few: Path, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 20)
    write, keys = FeatureTable.write, list[str]()

    def stopping(self: FeatureTable, row: WrittenRow, *more: Any) -> bool:
        if row.key == "i#30":
            raise OperationError("stopped")
        keys.append(row.key)
        return write(self, row, *more)

    monkeypatch.setattr(FeatureTable, "write", stopping)
    assert "stopped" in _load(few, demo_bundle, exit_code=1)
    assert json.loads((few / PROGRESS).read_text())["rows"] == 60  # whole blocks
    first = len(keys)
    monkeypatch.setattr(
        FeatureTable, "write", lambda s, r, *m: keys.append(r.key) or write(s, r, *m)
    )
    _load(few, demo_bundle)
    assert len(keys) - first == ROWS - 60
    assert {*keys} == {row.key for row in rows_of(bundle_spec(demo_bundle), few, users_alone=False)}


@pytest.mark.usefixtures("dynamodb")
def test_a_second_load_writes_nothing(few: Path, demo_bundle: Path) -> None:
    _load(few, demo_bundle)
    told = [line.split() for line in _load(few, demo_bundle).splitlines()]
    assert ["written", "0"] in told
    assert ["newer", "ones", "kept", f"{ROWS:,}"] in told


def test_rows_expire_where_they_should(few: Path, demo_bundle: Path, dynamodb: Any) -> None:
    _load(few, demo_bundle, "--expire-days", "2", "--users-alone")
    item = dynamodb.get_item(TableName="rows", Key={"k": {"S": "u#7"}})["Item"]
    assert float(item["e"]["N"]) == AS_OF_S + 2 * 86_400
    assert dynamodb.scan(TableName="rows", Select="COUNT")["Count"] == FEW_USERS


def test_writes_keep_to_their_budget() -> None:
    clock, slept = fakes.FakeClock(), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now_s += seconds

    pace = Pace(100.0, clock, sleep)
    for _ in range(50):
        pace.wait(2)
    assert sum(slept) == pytest.approx(49 * 2 / 100)
    clock.now_s += 10.0  # what was not used is not made up for
    pace.wait(2)
    pace.wait(2)
    assert sum(slept) == pytest.approx(50 * 2 / 100)


def test_a_row_counts_as_many_units_as_it_has_kilobytes() -> None:
    assert [WrittenRow("u#1", bytes(n)).units for n in (24, 900, 1_024, 5_000)] == [1, 1, 2, 5]


@pytest.mark.parametrize("text", ["yesterday", "", "20"])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OperationError, match="--as-of"):
        moment(text)


def test_a_moment_without_a_zone_is_utc() -> None:
    assert moment("2026-11-20T00:00:00") == moment("2026-11-20T01:00:00+01:00") == AS_OF_S


# ---- Showing -------------------------------------------------------------------------------------


def _get(bundle: Path, *ids: str) -> Any:
    return CliRunner().invoke(
        app, ["features", "get", "--from", URI, "--bundle", str(bundle), *ids]
    )


@pytest.mark.usefixtures("dynamodb")
def test_a_row_is_shown_by_name(tables: Path, demo_bundle: Path) -> None:
    _load(tables, demo_bundle)
    shown = dict(
        line.split(maxsplit=1) for line in _get(demo_bundle, "--item", "88").output.splitlines()
    )
    row = demo.demo_tables()["items"].set_index("item_id").loc[88]
    assert shown.pop("time") == "2026-11-20T00:00:00+00:00"
    assert {name: float(value) for name, value in shown.items()} == {
        name: pytest.approx(value, rel=1e-6) for name, value in row.items()
    }
    shown = dict(
        line.split(maxsplit=1) for line in _get(demo_bundle, "--user", "7").output.splitlines()
    )
    pairs = demo.demo_tables()["pairs"]
    assert int(shown["pairs"]) == (pairs["user_id"] == 7).sum()


@pytest.mark.usefixtures("dynamodb")
def test_what_is_not_there_or_is_refused_is_said_to_be_so(demo_bundle: Path, dynamodb: Any) -> None:
    dynamodb.put_item(TableName="rows", Item={"k": {"S": "i#1"}, "v": {"B": b"x"}, "t": {"N": "1"}})
    for ids, expected in {
        ("--item", "1"): "serving refuses this row: width",
        ("--item", "2"): "has no item 2",
        ("--item", "x"): "whole numbers",
        (): "give a --user or an --item",
        ("--item", "1", "--user", "2"): "give a --user or an --item",
    }.items():
        result = _get(demo_bundle, *ids)
        assert (result.exit_code, expected in result.output.replace("\n", " ")) == (1, True)


# ---- Comparing -----------------------------------------------------------------------------------


def _table(bundle: Path, command: str, *more: str) -> tuple[dict[str, list[str]], str]:
    """The lines by their first word, and the whole output."""
    arguments = ["features", command, "--from", URI, "--bundle", str(bundle), *more]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    words = [re.split(r"[\s│┃]+", line.strip("│┃ ")) for line in result.output.splitlines()]
    return {line[0]: line[1:] for line in words if len(line) > 1}, result.output


@pytest.fixture
def changed(tables: Path, demo_bundle: Path, dynamodb: Any) -> pd.DataFrame:
    """The items that a table has, of which some differ from the snapshot's: 10 are missing, 20 have
    another click rate, and one is no row."""
    items = demo.demo_tables()["items"].astype(np.float32).sort_values("item_id")
    items = items.iloc[10:].reset_index(drop=True)
    items.loc[:19, "item_ctr"] += np.float32(0.25)
    mark = RowLayout(bundle_spec(demo_bundle), "item").mark
    for item, *cells in items.itertuples(index=False):
        row = struct.pack("<I4f", mark, *cells)
        entry = {
            "k": {"S": f"i#{int(item)}"},
            "v": {"B": row},
            "t": {"N": str(time.time() - 7_200)},
        }
        dynamodb.put_item(TableName="rows", Item=entry)
    last = int(items["item_id"].iloc[-1])
    dynamodb.put_item(TableName="rows", Item=entry | {"k": {"S": f"i#{last}"}, "v": {"B": b"x"}})
    return items.iloc[:-1]


def test_stats_are_what_pandas_says(changed: pd.DataFrame, demo_bundle: Path) -> None:
    lines, told = _table(demo_bundle, "stats")
    assert "0 (0.0%)" in told  # no user
    assert "295 (96.7%)" in told
    assert lines["refused"] == ["1"]
    assert "p50 2.00, p99 2.00, oldest 2.00" in told
    snapshot = demo.demo_tables()["items"].set_index("item_id").loc[changed["item_id"].astype(int)]
    for name in ("item_ctr", "item_age_days"):
        mean, base, spread, shift = map(float, lines[name])
        assert mean == pytest.approx(changed[name].mean(), rel=1e-4)
        assert base == pytest.approx(snapshot[name].mean(), rel=1e-4)
        assert spread == pytest.approx(snapshot[name].std(ddof=0), rel=1e-4)
        assert shift == pytest.approx(abs(mean - base) / spread, abs=0.006)


def test_diff_finds_the_rows_that_differ(changed: pd.DataFrame, demo_bundle: Path) -> None:
    lines, _ = _table(demo_bundle, "diff")
    differing, largest, of = lines["item_ctr"]
    assert (differing, float(largest)) == ("20", pytest.approx(0.25, abs=1e-6))
    assert int(of) in changed["item_id"].iloc[:20].astype(int).tolist()
    assert lines["item_age_days"][:1] == ["0"]
    lines, _ = _table(demo_bundle, "diff", "--sample", "5")
    assert int(lines["items"][-1]) == 3  # of 5, one is missing and one is no row


@pytest.mark.usefixtures("dynamodb")
def test_a_table_on_moto_has_what_the_bundles_snapshot_has(demo_bundle: Path) -> None:
    uri = fill_table(demo_bundle)
    expected = ranked(demo_bundle, BODY)
    live = ranked(demo_bundle, BODY, FEATURES_URI=uri)
    assert _scores(live) == _scores(expected)
    assert (live["degraded"], live["unknown"]) == ([], expected["unknown"])
