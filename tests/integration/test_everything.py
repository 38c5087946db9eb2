"""A model with all that a spec can say: served by the local Lambda as its team computes it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everything
import zoo
from feedops.local.emulator import Function
from feedops.local.pool import EnvironmentPool
from feedops.workspace import EVENTS, FUNCTION
from stack.hook import load_canary

REQUESTS = 60
STAMPS = (
    "2026-03-29T00:59:59Z", "2026-03-29T02:00:00+01:00", "2026-11-22T23:30:00-11:00",
    "2027-01-01T00:10:00+14:00", "2026-06-30T05:05:05.5-00:30",
)  # fmt: skip


def _requests() -> list[dict[str, Any]]:
    random = np.random.default_rng(5)

    def some(value: Any) -> Any:
        return value if random.random() < 0.7 else None

    requests = []
    for number in range(REQUESTS):
        items = [zoo.film(item) for item in random.integers(0, zoo.ITEMS + 3, 1 + number)]
        films = [zoo.film(item) for item in random.integers(0, zoo.ITEMS + 3, number % 5)]
        sent = {
            "retrieval_score": some([some(round(random.random(), 4)) for _ in items]),
            "source": some([some(random.choice(["ann", "popular", "new"])) for _ in items]),
            "clip": some([some(random.integers(-9, 9, n % 4).tolist()) for n in range(len(items))]),
        }
        context = {
            "timestamp": STAMPS[number % len(STAMPS)],
            "recent": some(", ".join(films)),
            "device": some(str(random.choice(["phone", "tv", "watch"]))),
            "temp": some(str(round(random.normal(), 3))),
        }
        request = {
            "user_id": f"user-{number % (zoo.USERS + 2)}",
            "item_ids": items,
            "context": {key: text for key, text in context.items() if text is not None},
            "features": {name: values for name, values in sent.items() if values is not None},
            "explain": bool(number % 2),
        }
        requests.append(json.loads(json.dumps(request)))
    return requests


@pytest.fixture(scope="module")
def invoked(everything_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Invokes the local Lambda with an event, as bytes."""
    directory = tmp_path_factory.mktemp("everything")
    function = Function(FUNCTION, {"MODEL_URI": str(everything_bundle)}, timeout_s=60)
    pool = EnvironmentPool(
        function, 1, logs=directory / "logs", scratch=directory / "run", longest_wait_s=60.0
    )
    with asyncio.Runner() as runner:
        runner.run(pool.__aenter__())
        yield lambda event: json.loads(runner.run(pool.invoke(event)))
        runner.run(pool.__aexit__(None, None, None))


def test_it_is_served_as_its_team_computes_it(invoked: Any) -> None:
    frames = zoo.tables(text_ids=True)
    event = json.loads((EVENTS / "predict.json").read_bytes())
    for request in _requests():
        response = invoked(
            json.dumps(event | {"body": json.dumps(request), "isBase64Encoded": False}).encode()
        )
        assert response["statusCode"] == 200, response["body"]
        body = json.loads(response["body"])
        expected = everything.scores(request, frames)
        assert body["user_id"] == request["user_id"]
        order = np.argsort(-expected["score"], kind="stable")
        served = np.array([each["score"] for each in body["predictions"]])
        _assert_near(served, expected["score"][order])
        by_item = (
            dict(zip(request["item_ids"], range(len(order)), strict=True))
            if len({*request["item_ids"]}) == len(order)
            else {}
        )
        for each in body["predictions"] if by_item else []:
            at = by_item[each["item_id"]]
            _assert_near(each["score"], expected["score"][at])
            assert ("outputs" in each) == request["explain"]
            if request["explain"]:
                _assert_near(each["outputs"]["click"], expected["click"][at])
                _assert_near(each["outputs"]["dwell"], expected["dwell"][at])


def _assert_near(served: Any, expected: Any) -> None:
    apart = np.abs(np.asarray(served) - expected)
    assert (apart <= 1e-5 * np.maximum(1.0, np.abs(expected))).all(), apart


def test_a_releases_hook_finds_the_golden_scores(
    invoked: Any, everything_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends the golden requests as a caller does: texts for ids and for candidate features."""
    canary = load_canary()

    def request(_self: Any, method: str, path: str, body: object = None) -> dict[str, Any]:
        event = version._event(method, path, json.dumps(body) if body else None)
        response = invoked(json.dumps(event).encode())
        assert response["statusCode"] == 200, response["body"]
        parsed: dict[str, Any] = json.loads(response["body"])
        return parsed

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    version = canary.FunctionVersion("arn:version", "")
    monkeypatch.setattr(canary.FunctionVersion, "request", request)
    golden = json.loads((everything_bundle / canary.GOLDEN).read_bytes())["cases"]
    assert canary.judge("arn:version", str(everything_bundle), "", "text") == len(golden)
    assert any(case["user_id"] in {f"user-{n}" for n in range(zoo.USERS)} for case in golden)
    assert any("source" in case.get("features", {}) for case in golden)
