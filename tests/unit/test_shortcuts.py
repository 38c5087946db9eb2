"""Each shortcut of the hot path, compared with the plain way that it replaces."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any, TypeVar

import pytest
from starlette.types import ASGIApp, Message

import fakes
from feedrank import shortcuts
from feedrank.http.fast_path import may_wait
from feedrank.model import inference
from feedrank.ranking import batching

pytestmark = pytest.mark.shortcut
Result = TypeVar("Result")
LONGEST_S = 30.0
SOURCE = Path(shortcuts.__file__).read_text()
TESTS = Path(__file__).parents[1]
NAMES = sorted(name for name in vars(shortcuts) if name.isupper())
RANKED = 2  # of these bodies; each of them has a decision record, too
BODIES = [
    '{"user_id": 42, "item_ids": [17, 256, 3, 5000]}',
    '{"user_id": 7, "item_ids": [1], "context": {"device": "mobile"}}',
    '{"user_id": 42}',
    "SECRET",
    "x" * 70_000,
]
TIMES = {"latency_ms", "timestamp", "request_id", "Latency", "FeaturesLatency", "ScoringLatency",
         "cold_start", "SnapshotAge", "feature_time"}  # fmt: skip
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/predict", "headers": [],
                         "query_string": b""}  # fmt: skip
DOCUMENT = """
import json, sys
from feedrank import shortcuts
shortcuts.DEFERRED_SCHEMAS = sys.argv[1] == "on"
import fakes
from fastapi.openapi.models import OpenAPI
built = OpenAPI.__pydantic_complete__
print(json.dumps([built, fakes.app(None).app.openapi()]))
"""


@pytest.fixture(scope="module")
def handler(demo_bundle: Path) -> Iterator[ModuleType]:
    with fakes.container(MODEL_URI=str(demo_bundle)) as module:
        yield module


def _event(body: str) -> dict[str, Any]:
    http = {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"}
    return {
        "version": "2.0",
        "rawPath": "/predict",
        "rawQueryString": "",
        "headers": {},
        "requestContext": {"requestId": "r", "http": http},
        "body": body,
        "isBase64Encoded": False,
    }


def _timeless(value: dict[str, Any]) -> dict[str, Any]:
    parts = {key: part for key, part in value.items() if key not in TIMES}
    if "_aws" in parts:
        assert type(parts["_aws"].pop("Timestamp")) is int
    return parts


def _on_lambda(module: ModuleType, body: str) -> dict[str, Any]:
    response = module.lambda_handler(_event(body), fakes.LambdaContext())
    response["body"] = _timeless(json.loads(response["body"]))
    del response["headers"]["content-length"]
    return dict(response)


def _under_a_server(module: ModuleType, body: str) -> dict[str, Any]:
    return _finished(_served(module.app(), body))


def _finished(coroutine: Coroutine[Any, Any, Result]) -> Result:
    loop = asyncio.get_event_loop()  # the handler's, which `run` forgets
    try:
        return asyncio.run(coroutine)
    finally:
        asyncio.set_event_loop(loop)


async def _served(app: ASGIApp, body: str) -> dict[str, Any]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body.encode()}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(dict(SCOPE), receive, send)
    text = b"".join(message.get("body", b"") for message in sent)
    return {"status": sent[0]["status"], "body": _timeless(json.loads(text))}


@pytest.mark.parametrize("respond", [_on_lambda, _under_a_server])
@pytest.mark.parametrize("name", NAMES)
def test_without_it_the_function_responds_and_logs_alike(
    handler: ModuleType,
    printed: fakes.LogLines,
    monkeypatch: pytest.MonkeyPatch,
    respond: Callable[[ModuleType, str], dict[str, Any]],
    name: str,
) -> None:
    responses: dict[bool, list[dict[str, Any]]] = {}
    lines: dict[bool, list[dict[str, Any]]] = {}
    for is_on in (True, False):
        monkeypatch.setattr(shortcuts, name, is_on)
        responses[is_on] = [respond(handler, body) for body in BODIES]
        lines[is_on] = [_timeless(line) for line in printed()]
        printed().clear()
    assert responses[True] == responses[False]
    assert lines[True] == lines[False]
    assert len(lines[True]) == len(BODIES) + RANKED


def test_a_shared_inference_gives_each_request_its_own_scores(
    handler: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def respond_at_once() -> list[dict[int, float]]:
        app = handler.app()
        bodies = [json.dumps({"user_id": n, "item_ids": [*range(n, n + 20)]}) for n in range(1, 9)]
        tasks = [asyncio.create_task(_served(app, body)) for body in bodies]
        await asyncio.sleep(0)  # each now waits for its scores
        all_wait.set()
        responses = await asyncio.gather(*tasks)
        return [
            {item["item_id"]: item["score"] for item in response["body"]["predictions"]}
            for response in responses
        ]

    def count(*arguments: Any, **options: Any) -> Any:
        inferences.append(1)
        assert not shortcuts.BATCHING or all_wait.wait(LONGEST_S)
        return run(*arguments, **options)

    scores, counts, run = [], [], inference.score
    monkeypatch.setattr(inference, "score", count)
    monkeypatch.setattr(batching, "HAND_OVER_S", 0.0)  # even these few items are handed over
    monkeypatch.setattr(batching, "ENOUGH_S", 30.0)  # and all that wait are scored at once
    for is_on in (True, False):
        monkeypatch.setattr(shortcuts, "BATCHING", is_on)
        inferences: list[int] = []
        all_wait = Event()
        scores.append(_finished(respond_at_once()))
        counts.append(len(inferences))
    assert [pytest.approx(each, abs=1e-6) for each in scores[1]] == scores[0]
    assert counts[0] <= 2  # the first by itself, where the thread is quick
    assert counts[1] == 8


@pytest.mark.parametrize("name", ["DIRECT_ROUTE", "STRAIGHT_CYCLE"])
def test_its_switch_decides(
    handler: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert not may_wait(handler.lambda_app, dict(SCOPE))
    monkeypatch.setattr(shortcuts, name, False)
    assert may_wait(handler.lambda_app, dict(SCOPE))


def test_the_document_is_the_same_with_schemas_built_at_once() -> None:
    deferred, at_once = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", DOCUMENT, switch],
                capture_output=True,
                text=True,
                check=True,
                cwd=TESTS,
                env={"PYTHONPATH": f"{TESTS}:{TESTS.parent / 'function'}"},
            ).stdout.splitlines()[-1]
        )
        for switch in ("on", "off")
    )
    assert (deferred[0], at_once[0]) == (False, True)
    assert deferred[1] == at_once[1]


def test_each_names_a_test_that_compares_it_with_the_plain_way() -> None:
    named = re.findall(r"# Compared by (\w+\.py): (\w+)\.\n(\w+): bool = True", SOURCE)
    assert sorted(name for *_, name in named) == NAMES
    for file, test, _ in named:
        (path,) = TESTS.rglob(file)
        assert f"def {test}(" in path.read_text()
