"""The ranking that POST /predict responds with."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

import clients
import demo
import fakes
from clients import REQUEST
from feedrank.bundle.layout import GOLDEN
from feedrank.http.schemas import PredictResponse


@pytest.fixture(scope="module")
def client() -> TestClient:
    return clients.client(fakes.model())


def test_items_come_back_ranked(client: TestClient) -> None:
    response = client.post("/predict", json=REQUEST)
    body = response.json()
    latency_ms, request_id = body.pop("latency_ms"), body.pop("request_id")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert body == {
        "user_id": 1,
        "predictions": [
            {"item_id": 30, "score": 0.03, "rank": 1},
            {"item_id": 20, "score": 0.02, "rank": 2},
            {"item_id": 10, "score": 0.01, "rank": 3},
        ],
        "model_version": "feed_ranker-3",
        "model_digest": "dddddddddddd",
        "timestamp": "2026-11-22T12:00:00.123Z",
        "degraded": [],
    }
    assert latency_ms > 0
    assert request_id == response.headers["x-request-id"]


def test_every_request_has_an_id_of_its_own(client: TestClient) -> None:
    ids = {client.post("/predict", json=REQUEST).json()["request_id"] for _ in range(5)}
    assert len(ids) == 5


def test_equal_scores_stay_in_the_callers_order_and_duplicates_keep_their_places(
    client: TestClient,
) -> None:
    items = [700, 20, 600, 20, 700, 30]  # unknown ones score alike
    ranked = client.post("/predict", json={"user_id": 1, "item_ids": items}).json()["predictions"]
    assert [(p["item_id"], p["rank"]) for p in ranked] == [
        (700, 1), (600, 2), (700, 3), (30, 4), (20, 5), (20, 6),
    ]  # fmt: skip


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 120), min_size=1, max_size=100),
    st.dictionaries(st.just("temp"), st.floats(-1e30, 1e30).map(str)),
)
def test_every_valid_request_has_a_valid_response(
    client: TestClient, user_id: int, item_ids: list[int], context: dict[str, str]
) -> None:
    response = client.post(
        "/predict", json={"user_id": user_id, "item_ids": item_ids, "context": context}
    )
    body = PredictResponse.model_validate_json(response.content, strict=True)
    scores = [prediction.score for prediction in body.predictions]
    assert response.status_code == 200
    assert body.user_id == user_id
    assert sorted(p.item_id for p in body.predictions) == sorted(item_ids)
    assert scores == sorted(scores, reverse=True)
    assert [p.rank for p in body.predictions] == list(range(1, len(item_ids) + 1))


def test_a_response_has_the_fields_of_its_schema() -> None:
    client = TestClient(fakes.app(fakes.model(), CONTEXT_CHECK="warn"))
    request = REQUEST | {"user_id": 2, "context": {"devise": "mobile"}}
    body = client.post("/predict", json=request).json()
    assert body.keys() == PredictResponse.model_fields.keys()
    assert datetime.fromisoformat(body["timestamp"]) == fakes.NOON


def test_what_is_unknown_is_named_and_absent_where_nothing_is(client: TestClient) -> None:
    request = {"user_id": 2, "item_ids": [10, 999, 500, 999]}
    assert client.post("/predict", json=request).json()["unknown"] == {
        "user": True,
        "items": [999, 500],
    }
    assert "unknown" not in client.post("/predict", json=REQUEST).json()


def test_dropped_items_are_named_though_nothing_is_ranked() -> None:
    client = clients.client(fakes.model(unknown_items="drop"))
    response = client.post("/predict", json={"user_id": 1, "item_ids": [500, 999]})
    body = PredictResponse.model_validate_json(response.content, strict=True)
    assert (response.status_code, body.predictions) == (200, [])
    assert response.json()["unknown"] == {"user": False, "items": [500, 999]}


def test_a_real_bundle_gives_the_golden_scores(served: tuple[TestClient, Path]) -> None:
    client, bundle = served
    cases = json.loads((bundle / GOLDEN).read_bytes())["cases"]
    assert len(cases) >= 5
    for case in cases:
        moment = datetime.fromtimestamp(case["time_s"]).astimezone().isoformat()
        request = {
            "user_id": case["user_id"],
            "item_ids": case["item_ids"],
            "context": case["context"] | {"timestamp": moment},
        }
        body = PredictResponse.model_validate_json(client.post("/predict", json=request).content)
        expected = sorted(case["scores"], reverse=True)
        assert [p.score for p in body.predictions] == pytest.approx(expected, abs=1e-5)


def test_a_served_ranking_is_torchs(served: tuple[TestClient, Path]) -> None:
    client, bundle = served
    network = "two_tower" if "two_tower" in bundle.name else "deep_mlp"
    items = [*range(1, 300, 6), 777]
    moment = {"device": "tablet", "timestamp": "2026-11-21T23:59:59.5"}  # a Saturday, UTC
    request = {"user_id": 42, "item_ids": items, "context": moment}
    ranked = client.post("/predict", json=request).json()["predictions"]
    scores = demo.torch_scores(network, demo.features_of(42, items, "tablet", 23, 5))
    by_item = dict(zip(items, scores, strict=True))
    assert {p["item_id"]: p["score"] for p in ranked} == pytest.approx(by_item, abs=1e-5)


@pytest.fixture
def _far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own time is 13:45 hours ahead."""
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Pacific/Chatham")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("timestamp", "hour"),
    [
        ("2026-11-22T20:15:00Z", 20),
        ("2026-11-22T20:15:00", 20),
        ("2026-11-22T20:15:00+02:00", 18),
        ("2026-11-22T20:15:00-05:30", 1),
        ("2026-11-22", 0),
    ],
)
@pytest.mark.usefixtures("_far_from_utc")
def test_a_timestamp_without_an_offset_is_utc(timestamp: str, hour: int) -> None:
    hours = []

    class HourEngine(fakes.PriceEngine):
        def score(self, inputs: Any) -> Any:
            hours.append(inputs["features"][0, 3])
            return super().score(inputs)

    client = clients.client(fakes.model(HourEngine()))
    client.post("/predict", json=REQUEST | {"context": {"timestamp": timestamp}})
    assert hours == [hour]


def test_what_stands_in_is_named_in_the_response() -> None:
    client = clients.client(fakes.model(degraded=("model:layer",)))
    assert client.post("/predict", json=REQUEST).json()["degraded"] == ["model:layer"]


def test_a_record_that_can_not_be_written_does_not_fail_the_request(
    printed: fakes.LogLines,
) -> None:
    client = TestClient(fakes.app(fakes.model(), fakes.FullDisk()))
    assert client.post("/predict", json=REQUEST).status_code == 200
    messages = [line["message"] for line in printed() if "message" in line]
    assert messages == ["model loaded", "decision record spilled", "request"]
