"""Rows that Feast's SDK wrote into DynamoDB, and what the SDK answered, as
`tests/feast_store/record.py` has recorded them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDED = json.loads((Path(__file__).parent / "feast_store/rows.json").read_text())
PROJECT = "kinds"
TABLES: dict[str, dict[str, Any]] = {
    name: {item["entity_id"]["S"]: item for item in items}
    for name, items in RECORDED["tables"].items()
}
USERS, ITEMS, CODES = RECORDED["answers"]
EVENT_S = 1_795_154_400.123456  # of the oldest rows: 2026-11-20 06:00:00.123456


def answers(answer: Any, reference: str) -> Iterator[tuple[Any, Any, Any]]:
    """Each id with the table's item, or None, and what the SDK answered for the feature."""
    table = TABLES[f"{PROJECT}.{reference.partition(':')[0]}"]
    values = answer["values"][reference]
    for id_, key, value in zip(answer["ids"], answer["keys"], values, strict=True):
        yield id_, table.get(key), value


DEMO: dict[str, list[Any]] = RECORDED["demo"]  # by table
