"""Random faults of the table of live features, while its rows change: each answer is compared with
what torch gives for the rows that the decision record says were used."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import demo
import fakes
from faulty_table import FAULTS, TABLE, Front, Rows, front, slow
from feedrank import threads
from feedrank.bundle.layout import MANIFEST, parse_manifest
from feedrank.features.spec_reader import parse_spec
from long.conftest import Count, lines_of, printing
from scripted import VARIABLES, Answer, Sent

REQUESTS = 10_000 if os.environ.get("CHAOS_FAULTS") == "all" else 150
TOLERANCE = 1e-5
STEPS = {"o": "cache", "b": "snapshot", "d": "defaults"}
USER_DEFAULTS, ITEM_DEFAULTS = (0.12, 21.5, 0.0, 0.0), (0.12, 21.5, 0.0, 3.0)
# The snapshot has users to 200 and items to 300; the table lacks some of them, and has others.
USERS, UNKNOWN_USERS = [*range(1, 20), *range(196, 206)], [20, 21, 900]
ITEMS, UNKNOWN_ITEMS = [*range(1, 40), *range(291, 311)], [40, 41, 900]
TIMEOUT_MS = 100
SLOW = {"hanging": slow(0.15), "slow by 500 ms": slow(0.15)}  # beyond that
NOON = "2026-11-25T12:00:00Z"  # a Wednesday
Row = tuple[float, ...]


class Reference:
    """The scores of a request by its record. It has to be told every record: an item's row in the
    container's cache is the one that was read last."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._cached: dict[int, Row] = {}
        tables = demo.demo_tables()
        self._users, self._items = _by_id(tables["users"]), _by_id(tables["items"])
        pairs = tables["pairs"].itertuples(index=False)
        self._pairs = {(int(user), int(item)): count for user, item, count in pairs}
        self._network = demo.network("deep_mlp")

    def scores(self, user: int, items: list[int], sources: str) -> list[float]:
        of_user, *of_items = sources
        rows = [
            [*self._user(user, of_user), *self._item(item, source), 12.0, 2.0, 1.0, 0.0, 0.0,
             self._pair(user, item, of_user), 0.0]
            for item, source in zip(items, of_items, strict=True)
        ]  # fmt: skip
        with torch.inference_mode():
            scores: list[float] = self._network(torch.tensor(rows, dtype=torch.float32)).tolist()
        return scores

    def _user(self, user: int, source: str) -> Row:
        if source == "s":
            return self._rows.users[user]
        return self._users[user] if source == "b" else USER_DEFAULTS

    def _pair(self, user: int, item: int, source: str) -> float:
        if source == "s":
            return self._rows.pairs[user].get(item, 0.0)
        return self._pairs.get((user, item), 0.0) if source == "b" else 0.0

    def _item(self, item: int, source: str) -> Row:
        if source == "s":
            self._cached[item] = self._rows.items[item]
        if source in "sco":
            return self._cached[item]
        return self._items[item] if source == "b" else ITEM_DEFAULTS


def _by_id(table: Any) -> dict[int, Row]:
    return {int(row[0]): tuple(row[1:]) for row in table.itertuples(index=False)}


def _row(dice: random.Random) -> Row:
    """Numbers that float32 has."""
    return (dice.randrange(8) / 32, dice.randrange(40), dice.randrange(8), dice.randrange(50))


def _pairs(dice: random.Random) -> dict[int, float]:
    return {item: dice.randrange(1, 6) for item in dice.sample(ITEMS, 8)}


@pytest.fixture
def rows(demo_bundle: Path, moto_url: str) -> Rows:
    spec = parse_spec(parse_manifest((demo_bundle / MANIFEST).read_bytes()).feature_spec)
    dice, rows = random.Random(1), Rows(spec, moto_url)  # noqa: S311
    for user in USERS:
        rows.put_user(user, _row(dice), _pairs(dice))
    for item in ITEMS:
        rows.put_item(item, _row(dice))
    return rows


@pytest.fixture
def table(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(threads, "PAUSE_S", 0.05)  # else most requests would find an open breaker
    with front(moto_url) as table:
        yield table


def test_no_answer_is_silently_wrong(
    demo_bundle: Path, rows: Rows, table: Front, count: Count
) -> None:
    dice, reference = random.Random(2), Reference(rows)  # noqa: S311

    def random_fault(sent: Sent, answer: Answer) -> Answer:
        name = dice.choice([*FAULTS]) if dice.random() < 0.25 else "none"
        return SLOW.get(name, FAULTS[name])(sent, answer)

    table.fault = random_fault
    with _container(demo_bundle, table) as handler:
        for _ in range(REQUESTS):
            if dice.random() < 0.1:
                rows.put_item(dice.choice(ITEMS), _row(dice))
            body, record = _ranked(handler, _request(dice))
            _check(body, record, reference, rows)
            count(", ".join(why.partition(" ")[0] for why in body["degraded"]) or "whole")


def _container(bundle: Path, table: Front) -> Any:
    return fakes.container(
        **VARIABLES,
        MODEL_URI=str(bundle),
        AWS_LAMBDA_FUNCTION_NAME="feedrank",
        AWS_ENDPOINT_URL_DYNAMODB=table.url,
        FEATURES_URI=f"dynamodb://{TABLE}",
        FEATURES_TIMEOUT_MS=str(TIMEOUT_MS),
        FEATURES_CACHE_S="0.3",
        REQUEST_TIMEOUT_MS="60000",
    )


def _request(dice: random.Random) -> dict[str, Any]:
    """Popular items are in most requests, and so in the cache."""
    items = dice.choices(ITEMS, k=dice.randrange(1, 9)) + dice.choices(ITEMS[:4], k=2)
    return {
        "user_id": dice.choice(USERS * 3 + UNKNOWN_USERS),
        "item_ids": items + dice.sample(UNKNOWN_ITEMS, dice.randrange(2)),
        "context": {"device": "mobile", "timestamp": NOON},
    }


def _ranked(handler: Any, request: dict[str, Any]) -> tuple[Any, Any]:
    """The response's body and the decision record."""
    with printing() as output:
        event = fakes.http_event("POST", "/predict", request)
        response = handler.lambda_handler(event, fakes.LambdaContext(120_000))
    assert response["statusCode"] == 200, response
    records = [line for line in map(json.loads, lines_of(output)) if line.get("row_sources")]
    (record,) = records
    return json.loads(response["body"]), record


def _check(body: Any, record: Any, reference: Reference, rows: Rows) -> None:
    user, items = record["user_id"], record["item_ids"]
    sources: str = record["row_sources"]["sources"]
    expected = dict(zip(items, reference.scores(user, items, sources), strict=True))
    assert [each["rank"] for each in body["predictions"]] == [*range(1, len(items) + 1)]
    assert sorted(each["item_id"] for each in body["predictions"]) == sorted(items)
    scores = [each["score"] for each in body["predictions"]]
    assert scores == sorted(scores, reverse=True)
    for each in body["predictions"]:
        assert abs(each["score"] - expected[each["item_id"]]) <= TOLERANCE
    counts = {step: sources.count(letter) for letter, step in STEPS.items()}
    assert body["degraded"] == [
        f"features:{step} {number}/{len(sources)}" for step, number in counts.items() if number
    ]
    is_unknown = [letter == "u" for letter in sources]
    known = [user in rows.users, *(item in rows.items for item in items)]
    assert not any(map(all, zip(is_unknown, known, strict=True)))
    unknown = [item for item, letter in zip(items, sources[1:], strict=True) if letter == "u"]
    assert body.get("unknown", {"user": False, "items": []}) == {
        "user": is_unknown[0],
        "items": list(dict.fromkeys(unknown)),
    }
