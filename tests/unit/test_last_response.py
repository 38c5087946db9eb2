"""The response that another thread posts to Lambda is the one that the function would return."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fakes
from feedops.workspace import EVENTS
from feedrank import settings
from feedrank.domain import FloatArray
from feedrank.model.inference import TIMED_OUT, watchdog

VARYING = {"timestamp", "latency_ms", "Latency", "cold_start", "reason"}
KINDS = ("predict", "function_url", "rest_v1", "alb")


class RuntimeApi(HTTPServer):
    """Lambda's, as far as it takes responses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RuntimeHandler)
        self.status = 202
        self.posted: list[tuple[str, dict[str, Any]]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class RuntimeHandler(BaseHTTPRequestHandler):
    server: RuntimeApi

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posted.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Hanging:
    """Does what the watchdog does while an inference hangs, in a thread of its own as there."""

    failure: Exception | None = None

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        thread = Thread(target=self._respond)
        thread.start()
        thread.join()
        return np.full(len(inputs["features"]), 0.5, np.float32)

    def _respond(self) -> None:
        try:
            watchdog.before_exit()
        except HTTPException as error:
            self.failure = error


@pytest.fixture
def runtime_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeApi]:
    with RuntimeApi() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv(settings.RUNTIME_API, server.address)
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def handler(demo_bundle: Path) -> Iterator[ModuleType]:
    with fakes.container(MODEL_URI=str(demo_bundle)) as module:
        yield module


def _hang(handler: ModuleType, name: str) -> Hanging:
    """In a request that is served after all."""
    loaded, engine = handler.slot.ready, Hanging()
    handler.slot.ready = replace(loaded, engine=engine)
    try:
        _invoke(handler, name)
    finally:
        handler.slot.ready = loaded
    return engine


def _invoke(handler: ModuleType, name: str, left_ms: int = 10_000) -> dict[str, Any]:
    event = json.loads((EVENTS / f"{name}.json").read_bytes())
    response: dict[str, Any] = handler.lambda_handler(event, fakes.LambdaContext(left_ms))
    return response


@pytest.mark.parametrize("name", KINDS)
def test_it_is_the_response_to_a_request_whose_time_is_up(
    handler: ModuleType, runtime_api: RuntimeApi, log: fakes.LogLines, name: str
) -> None:
    expected = _invoke(handler, name, left_ms=40)
    assert expected["statusCode"] == 504
    assert _hang(handler, name).failure is None
    request_id = fakes.LambdaContext.aws_request_id
    path = f"/2018-06-01/runtime/invocation/{request_id}/response"
    assert runtime_api.posted == [(path, expected)]


def test_it_is_logged_and_counted_like_any_other(
    handler: ModuleType, runtime_api: RuntimeApi, printed: fakes.LogLines
) -> None:
    _invoke(handler, "predict", left_ms=40)
    _hang(handler, "predict")
    expected, line = (line for line in printed() if line.get("status") == 504)
    assert _stable(line) == _stable(expected)
    assert (line["Errors"], line["reason"]) == (1, TIMED_OUT)


def _stable(line: dict[str, Any]) -> dict[str, Any]:
    """Without times, the reason, and what only a container's first request has."""
    stable = {name: each for name, each in line.items() if name not in VARYING}
    return stable | {"_aws": line["_aws"]["CloudWatchMetrics"]}


def test_what_lambda_refuses_is_an_error(handler: ModuleType, runtime_api: RuntimeApi) -> None:
    """Such as a response after the one that the request got meanwhile."""
    runtime_api.status = 403
    failure = _hang(handler, "predict").failure
    assert str(failure) == "Lambda's runtime API responded with 403"


def test_before_the_first_request_nothing_is_posted(
    demo_bundle: Path, runtime_api: RuntimeApi
) -> None:
    with fakes.container(MODEL_URI=str(demo_bundle)):
        watchdog.before_exit()
    assert runtime_api.posted == []
