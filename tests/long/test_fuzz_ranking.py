"""Properties of every ranking, through the handler and with real bundles."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import strategies as st

import fakes
from long.conftest import GENEROUS, LEFT_MS, Count, Fuzz, lines_of, printing
from long.predictions import KINDS, LARGE, WITH_EVERYTHING, Body, Kind, bodies, select
from long.wire import SECRET

NOON = "2026-11-22T12:00:00Z"
RELATIVE = 1e-5  # of scores that another batch may round otherwise


# Each of these once failed, in one test or another.
REGRESSIONS = (
    {"user_id": "a\x85\u2028b", "item_ids": ["film 1 é"]},  # in a log line as it is
    {"user_id": "user-17", "item_ids": [*["film 0 é"] * 7, "film 60 é"] * 12,
     "context": {"recent": f"film 0 é, film 37 é, {SECRET}"}},  # an unknown text is in a place
)  # fmt: skip


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.bundle)
def kind(request: pytest.FixtureRequest) -> Kind:
    parameter: Kind = request.param
    return parameter


@pytest.fixture(scope="module")
def handler(request: pytest.FixtureRequest, kind: Kind) -> Iterator[ModuleType]:
    bundle: Path = request.getfixturevalue(kind.bundle)
    with fakes.container(MODEL_URI=str(bundle), **GENEROUS) as module:
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
        response = handler.lambda_handler(event, fakes.LambdaContext(LEFT_MS))
    assert response["statusCode"] == 200, response["body"]
    lines = map(json.loads, lines_of(output))
    (record,) = [line for line in lines if "record" in line]
    return json.loads(response["body"]), record


def test_a_response_and_its_record_have_the_items_by_score(
    handler: ModuleType, kind: Kind, fuzz: Fuzz, count: Count
) -> None:
    def check(body: Body) -> None:
        response, record = predict(handler, body)
        predictions = response["predictions"]
        assert sorted(each["item_id"] for each in predictions) == sorted(body["item_ids"])
        assert [each["rank"] for each in predictions] == list(range(1, len(predictions) + 1))
        scores = [each["score"] for each in predictions]
        assert scores == sorted(scores, reverse=True)
        if kind is not WITH_EVERYTHING:  # whose scores have no range
            assert all(0 <= score <= 1 for score in scores)
        by_rank = sorted(zip(record["ranks"], record["item_ids"], record["scores"], strict=True))
        assert [(each["rank"], each["item_id"], each["score"]) for each in predictions] == by_rank
        assert record["item_ids"] == body["item_ids"]
        for name in ("request_id", "timestamp", "model_version", "model_digest", "degraded"):
            assert record[name] == response[name]
        assert record["unknown"] == response.get("unknown")
        count(f"{len(scores)} items" if len(scores) >= LARGE[0] else "a few items")

    fuzz(check, bodies(kind), REGRESSIONS if kind is WITH_EVERYTHING else ())


def test_a_record_sent_again_has_the_same_scores(
    handler: ModuleType, kind: Kind, fuzz: Fuzz, count: Count
) -> None:
    """It has no text that the bundle doesn't list, and nothing else of the request is missing."""

    def check(body: Body) -> None:
        _, record = predict(handler, at_a_time(body))
        assert SECRET not in json.dumps(record)
        again = {
            "user_id": record["user_id"],
            "item_ids": record["item_ids"],
            "context": {key: text for key, text in record["context"].items() if text is not None},
            "features": json.loads(record["features"] or "{}"),
        }
        assert predict(handler, again)[1]["scores"] == record["scores"]
        count("ranked twice")

    fuzz(check, bodies(kind), REGRESSIONS if kind is WITH_EVERYTHING else ())


def test_equal_candidates_have_equal_scores_and_keep_the_callers_order(
    handler: ModuleType, kind: Kind, fuzz: Fuzz, count: Count
) -> None:
    """Each candidate is there twice, the second time in another position."""

    def check(case: tuple[Body, list[int]]) -> None:
        body, shuffled = case
        places = [*range(len(body["item_ids"])), *shuffled]
        _, record = predict(handler, select(body, places))
        by_candidate: dict[int, list[tuple[int, float]]] = {}
        for place, rank, score in zip(places, record["ranks"], record["scores"], strict=True):
            by_candidate.setdefault(place, []).append((rank, score))
        for same in by_candidate.values():
            assert len({score for _, score in same}) == 1
            assert same == sorted(same)
        count("ranked")

    fuzz(check, with_shuffled(kind))


def test_a_candidates_score_does_not_depend_on_its_neighbours(
    handler: ModuleType, kind: Kind, fuzz: Fuzz, count: Count
) -> None:
    def check(case: tuple[Body, list[int]]) -> None:
        body, shuffled = case
        body = at_a_time(body)
        scores = predict(handler, body)[1]["scores"]
        places = shuffled[:7]
        again = predict(handler, select(body, places))[1]["scores"]
        expected = [scores[place] for place in places]
        assert again == pytest.approx(expected, rel=RELATIVE, abs=1e-6)
        count("ranked twice")

    fuzz(check, with_shuffled(kind))


def at_a_time(body: Body) -> Body:
    return body | {"context": {"timestamp": NOON, **body.get("context", {})}}


@st.composite
def with_shuffled(draw: st.DrawFn, kind: Kind) -> tuple[Body, list[int]]:
    """A body, and the places of its candidates in another order."""
    body = draw(bodies(kind))
    body = select(body, range(min(50, len(body["item_ids"]))))
    return body, draw(st.permutations(range(len(body["item_ids"]))))
