"""The one line that each request logs."""

import asyncio
import json
import re
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

import clients
import fakes
from clients import REQUEST
from feedrank.domain import FeatureRows, Query
from feedrank.errors import ScoringError
from feedrank.telemetry.logging import logger


@pytest.fixture(scope="module")
def client() -> TestClient:
    return clients.client(fakes.model())


def test_a_request_is_one_wide_line_that_holds_no_payload(
    printed: fakes.LogLines, client: TestClient
) -> None:
    request = {"user_id": 918273645, "item_ids": [81726354], "context": {"temp": "7263.5"}}
    headers = {"authorization": "SECRET"}
    response = client.post("/predict?token=SECRET", json=request, headers=headers)
    (line,) = [line for line in printed() if "record" not in line]
    times = [line.pop(name) for name in ("latency_ms", "Latency", "FeaturesLatency")]
    times += [line.pop("ScoringLatency"), line.pop("_aws")["Timestamp"]]
    assert min(times) > 0
    assert isinstance(line.pop("cold_start"), bool)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is UTC
    assert line == {
        "level": "INFO",
        "message": "request",
        "service": "feedrank",
        "request_id": response.headers["x-request-id"],
        "correlation_id": None,
        "trace_id": None,
        "route": "/predict",
        "status": 200,
        "items": 1,
        "unknown_users": 1,
        "unknown_items": 1,
        "degraded": [],
        "model_version": "feed_ranker-3",
        "Errors": 0,
        "ItemsScored": 1,
        "UnknownUsers": 1,
        "UnknownItems": 1,
        "Degraded": 0,
        "DecisionsSpilled": 0,
        "ScoreMean": 0.5,
        "ScoreSpread": 0.0,
        "SnapshotAge": 216_000,  # from the tables' midnight to noon two days later
    }


def test_requests_side_by_side_log_their_own_ids(printed: fakes.LogLines) -> None:
    class WordyStore(fakes.FakeStore):
        """Logs a line once all have arrived."""

        waits = True

        async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
            await arrived.wait()
            logger.warning("slow", user=query.user_id)
            return await super().fetch(query, deadline_s)

    async def ask(user_id: int) -> None:
        body = json.dumps(REQUEST | {"user_id": user_id}).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                ids[user_id] = dict(message["headers"])[b"x-request-id"].decode()

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [],
                 "query_string": b""}  # fmt: skip
        await app(scope, receive, send)

    async def ask_all() -> None:
        tasks = [asyncio.create_task(ask(user_id)) for user_id in range(4)]
        await asyncio.sleep(0)
        arrived.set()
        await asyncio.gather(*tasks)

    ids: dict[int, str] = {}
    arrived = asyncio.Event()
    app = fakes.app(fakes.model(store=WordyStore()))
    asyncio.run(ask_all())
    messages = [line for line in printed() if line.get("message") == "slow"]
    logged = {line["user"]: line["request_id"] for line in messages}
    assert logged == ids
    assert len(set(ids.values())) == 4


def test_the_first_request_of_a_container_is_said_to_be_cold(printed: fakes.LogLines) -> None:
    client = clients.client(fakes.model())
    for _ in range(3):
        client.post("/predict", json=REQUEST)
    cold = [line["cold_start"] for line in printed() if line.get("message") == "request"]
    assert cold == [True, False, False]


@pytest.mark.parametrize("path", ["/predict", "/SECRET", "/predict/SECRET"])
def test_a_refused_request_is_one_line_too(
    printed: fakes.LogLines, client: TestClient, path: str
) -> None:
    client.post(path, content=b'{"SECRET": "SECRET"}')
    (line,) = printed()
    assert (line["message"], line["status"]) == ("request", 422 if path == "/predict" else 404)
    assert line["error"] in {"InvalidRequestError", "HTTPException"}
    assert "SECRET" not in json.dumps(line)


def test_only_predict_is_counted_in_the_metrics(
    printed: fakes.LogLines, client: TestClient
) -> None:
    for method, path in (("GET", "/health"), ("GET", "/nothing"), ("POST", "/predict")):
        client.request(method, path)
    assert [("_aws" in line, line["route"]) for line in printed()] == [
        (False, "/health"),
        (False, "none"),
        (True, "/predict"),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ScoringError("the model gave 2 scores for 3 items"), "the model gave 2 scores for 3 item"),
        (ZeroDivisionError("SECRET"), r"ZeroDivisionError in fakes\.py:\d+$"),
        (OSError(5, "SECRET"), r"OSError in fakes\.py:\d+$"),
    ],
)
def test_the_line_of_a_failed_request_has_the_reason_and_no_foreign_text(
    printed: fakes.LogLines, error: Exception, reason: str
) -> None:
    clients.client(fakes.model(fakes.RaisingEngine(error))).post("/predict", json=REQUEST)
    (line,) = [line for line in printed() if line["message"] == "request"]
    assert (line["status"], line["error"]) == (500, type(error).__name__)
    assert re.match(reason, line["reason"])


def test_a_request_without_a_model_is_logged_with_its_reason(printed: fakes.LogLines) -> None:
    clients.client(None).post("/predict", json=REQUEST)
    (line,) = [line for line in printed() if line["message"] == "request"]
    assert (line["status"], line["reason"]) == (503, "no bundle could be loaded; see the log")


def test_a_refused_request_has_no_reason_since_its_text_may_be_the_callers(
    printed: fakes.LogLines, client: TestClient
) -> None:
    client.post("/predict", json={"user_id": 1})
    (line,) = printed()
    assert (line["status"], "reason" in line) == (422, False)
