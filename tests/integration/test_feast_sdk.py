"""A Feast repository of the demo's tables, materialised by the SDK into SQLite and into DynamoDB
(by moto): the SDK answers from both what is in the tables, and so does the function without it."""

import json
from math import inf, isnan
from pathlib import Path
from typing import Any

import pytest

import demo
from feast_sdk import LACKING, PYTHON, demo_repository, demo_requests, materialize
from feedops.features.feast_spec import described, feast_of
from feedrank.features.feast import FeastTables
from feedrank.features.feast_rows import feast_layout
from feedrank.features.spec import Source
from feedrank.features.spec_reader import parse_spec

pytestmark = [
    pytest.mark.substituted_by("tests/integration/test_feast.py"),
    pytest.mark.skipif(not PYTHON.exists(), reason=LACKING),
    pytest.mark.slow,
]
USERS, ITEMS = [*range(1, demo.USERS + 1), 5_000], [*range(1, 90), 1001, 5_000]


def _told(answer: Any) -> dict[str, list[Any]]:
    return {name.partition(":")[2]: values for name, values in answer["values"].items()}


def _of_tables(view: str, key: str, ids: list[int]) -> dict[str, list[Any]]:
    table = demo.demo_tables()[view].set_index(key).reindex(ids)
    return {name: [None if isnan(value) else value for value in table[name]] for name in table}


def _read(tables: FeastTables, source: Source, spec: Any, ids: list[int]) -> dict[str, list[Any]]:
    """What the function makes of the rows."""
    layout, found = feast_layout(spec, source), dict[Any, Any]()
    if source == "user":
        found = {id_: tables.read_user(id_, inf) for id_ in ids}
    else:
        tables.read_items(ids, inf, found)
    known = [id_ for id_ in ids if found[id_]]
    rows, reasons = layout.unpack([found[id_].row for id_ in known])
    assert {*reasons} == {""}
    cells = {id_: row["values"] for id_, row in zip(known, rows, strict=True)}
    return {
        feature.name: [float(cells[id_][at]) if id_ in cells else None for id_ in ids]
        for at, feature in enumerate(spec.block(source, "values"))
    }


def _assert_same(cells: dict[str, list[Any]], truth: dict[str, list[Any]]) -> None:
    assert cells.keys() == truth.keys()
    for name, values in truth.items():
        for ours, theirs in zip(cells[name], values, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or abs(ours - theirs) <= 1e-6 * max(1.0, abs(theirs))


@pytest.mark.usefixtures("aws_server")
def test_rows_and_views_are_the_sdks(tmp_path: Path) -> None:
    in_sqlite, in_dynamodb = demo_repository(tmp_path), demo_repository(tmp_path, "us-east-1")
    told = materialize([in_sqlite, in_dynamodb], demo_requests(USERS, ITEMS))["answers"]
    written = _spec(in_dynamodb)
    spec = parse_spec(written)
    tables = FeastTables("feed", spec, reads_items=True)
    sources: list[tuple[Source, str, str, list[int]]] = [
        ("user", "users", "user_id", USERS),
        ("item", "items", "item_id", ITEMS),
    ]
    for of_sqlite, of_dynamodb, (source, view, key, ids) in zip(*told, sources, strict=True):
        truth = _told(of_dynamodb)
        assert truth == _told(of_sqlite)
        _assert_same(truth, _of_tables(view, key, ids))
        _assert_same(_read(tables, source, spec, ids), truth)
    feast = feast_of(spec, described(in_dynamodb, PYTHON), {})
    assert feast["features"] == written["feast"]["features"]
    assert {
        (name, view["join_key"], view["join_key_type"]) for name, view in feast["views"].items()
    } == {
        ("users", "user_id", "int64"),
        ("items", "item_id", "int64"),
    }


def _spec(repository: Path) -> Any:
    return json.loads((repository / "feature_spec.json").read_text())
