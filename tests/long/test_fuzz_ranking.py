"""Properties of every ranking, through the handler and with a real bundle."""

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

Body = dict[str, Any]


@pytest.fixture(scope="module", params=["demo_bundle", "two_tower_bundle"])
def handler(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    bundle: Path = request.getfixturevalue(request.param)
    with fakes.container(MODEL_URI=str(bundle)) as module:
        yield module


def predict(handler: ModuleType, body: Body) -> tuple[dict[str, Any], dict[str, Any]]:
    """The response and its decision record."""
    event = {
        "version": "2.0",
        "rawPath": "/predict",
        "headers": {},
        "requestContext": {
            "requestId": "r",
            "http": {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"},
        },
        "body": json.dumps(body),
    }
    with printing() as output:
        response = handler.lambda_handler(event, fakes.LambdaContext())
    assert response["statusCode"] == 200
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    (record,) = [line for line in lines if "record" in line]
    return json.loads(response["body"]), record


def test_a_response_and_its_record_have_the_items_by_score(
    handler: ModuleType, fuzz: Fuzz, count: Count
) -> None:
    def check(body: Body) -> None:
        response, record = predict(handler, body)
        predictions = response["predictions"]
        assert sorted(each["item_id"] for each in predictions) == sorted(body["item_ids"])
        assert [each["rank"] for each in predictions] == list(range(1, len(predictions) + 1))
        scores = [each["score"] for each in predictions]
        assert all(0 <= score <= 1 for score in scores)
        assert scores == sorted(scores, reverse=True)
        by_rank = sorted(zip(record["ranks"], record["item_ids"], record["scores"], strict=True))
        assert [(each["rank"], each["item_id"], each["score"]) for each in predictions] == by_rank
        assert record["item_ids"] == body["item_ids"]
        for name in ("request_id", "timestamp", "model_version", "model_digest", "degraded"):
            assert record[name] == response[name]
        assert record["unknown"] == response.get("unknown")
        count("ranked")

    fuzz(check, events.predictions)


def test_equal_items_have_equal_scores_and_keep_the_callers_order(
    handler: ModuleType, fuzz: Fuzz, count: Count
) -> None:
    """Each item is among the candidates twice, the second time in another position."""

    def check(case: tuple[Body, list[int]]) -> None:
        body, shuffled = case
        _, record = predict(handler, body | {"item_ids": [*body["item_ids"], *shuffled]})
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
    def check(case: tuple[Body, list[int]]) -> None:
        body, shuffled = case
        first = score_of(predict(handler, at_noon(body))[0])
        again = score_of(predict(handler, at_noon(body | {"item_ids": shuffled[:7]}))[0])
        for item, score in again.items():
            assert score == pytest.approx(first[item], abs=1e-6)
        count("ranked twice")

    fuzz(check, with_shuffled())


def at_noon(body: Body) -> Body:
    return body | {"context": {**body.get("context", {}), "timestamp": "2026-11-22T12:00:00Z"}}


def score_of(response: dict[str, Any]) -> dict[int, float]:
    return {each["item_id"]: each["score"] for each in response["predictions"]}


@st.composite
def with_shuffled(draw: st.DrawFn) -> tuple[Body, list[int]]:
    body = draw(events.predictions)
    body["item_ids"] = body["item_ids"][:50]
    return body, draw(st.permutations(body["item_ids"]))
