"""What holds for any ranking, through the handler and a real bundle."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import strategies as st

import fakes
from long import events
from long.conftest import Count, Fuzz, printing

Asked = dict[str, Any]


@pytest.fixture(scope="module", params=["demo_bundle", "two_tower_bundle"])
def handler(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    bundle: Path = request.getfixturevalue(request.param)
    with fakes.container(MODEL_URI=str(bundle)) as module:
        yield module


def ranked(handler: ModuleType, asked: Asked) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer and its decision record."""
    event = {
        "version": "2.0",
        "rawPath": "/predict",
        "headers": {},
        "requestContext": {
            "requestId": "r",
            "http": {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"},
        },
        "body": json.dumps(asked),
    }
    with printing() as printed:
        answer = handler.lambda_handler(event, fakes.LambdaContext())
    assert answer["statusCode"] == 200
    lines = [json.loads(line) for line in printed.getvalue().splitlines()]
    (record,) = [line for line in lines if "record" in line]
    return json.loads(answer["body"]), record


def test_an_answer_is_the_items_by_score_and_so_is_its_record(
    handler: ModuleType, fuzz: Fuzz, count: Count
) -> None:
    def check(asked: Asked) -> None:
        answer, record = ranked(handler, asked)
        shown = answer["predictions"]
        assert sorted(each["item_id"] for each in shown) == sorted(asked["item_ids"])
        assert [each["rank"] for each in shown] == list(range(1, len(shown) + 1))
        scores = [each["score"] for each in shown]
        assert all(0 <= score <= 1 for score in scores)
        assert scores == sorted(scores, reverse=True)
        by_rank = sorted(zip(record["ranks"], record["item_ids"], record["scores"], strict=True))
        assert [(each["rank"], each["item_id"], each["score"]) for each in shown] == by_rank
        assert record["item_ids"] == asked["item_ids"]
        for name in ("request_id", "timestamp", "model_version", "model_digest", "degraded"):
            assert record[name] == answer[name]
        assert record["unknown"] == answer.get("unknown")
        count("ranked")

    fuzz(check, events.predictions)


def test_equal_items_score_alike_and_stay_in_the_callers_order(
    handler: ModuleType, fuzz: Fuzz, count: Count
) -> None:
    """Each item stands twice among the candidates, the second time in another place."""

    def check(case: tuple[Asked, list[int]]) -> None:
        asked, shuffled = case
        _, record = ranked(handler, asked | {"item_ids": [*asked["item_ids"], *shuffled]})
        places: dict[int, list[tuple[int, float]]] = {}
        for item, rank, score in zip(
            record["item_ids"], record["ranks"], record["scores"], strict=True
        ):
            places.setdefault(item, []).append((rank, score))
        for same in places.values():
            assert len({score for _, score in same}) == 1
            assert same == sorted(same)
        count("ranked")

    fuzz(check, with_shuffled())


def test_an_items_score_does_not_depend_on_its_neighbours(
    handler: ModuleType, fuzz: Fuzz, count: Count
) -> None:
    def check(case: tuple[Asked, list[int]]) -> None:
        asked, shuffled = case
        first = score_of(ranked(handler, at_noon(asked))[0])
        again = score_of(ranked(handler, at_noon(asked | {"item_ids": shuffled[:7]}))[0])
        for item, score in again.items():
            assert score == pytest.approx(first[item], abs=1e-6)
        count("ranked twice")

    fuzz(check, with_shuffled())


def at_noon(asked: Asked) -> Asked:
    return asked | {"context": {**asked.get("context", {}), "timestamp": "2026-11-22T12:00:00Z"}}


def score_of(answer: dict[str, Any]) -> dict[int, float]:
    return {each["item_id"]: each["score"] for each in answer["predictions"]}


@st.composite
def with_shuffled(draw: st.DrawFn) -> tuple[Asked, list[int]]:
    asked = draw(events.predictions)
    asked["item_ids"] = asked["item_ids"][:50]
    return asked, draw(st.permutations(asked["item_ids"]))
