"""A model that never ends for some requests, under Lambda's emulator and under uvicorn."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
import pytest

import endless
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.workspace import EVENTS, FUNCTION
from feedrank.http.schemas import Problem
from uvicorns import uvicorn

BUDGET = {"REQUEST_TIMEOUT_MS": "1000"}
LONGEST_S = 60
REQUEST = {"user_id": 42, "item_ids": [17, 256, 3]}
ENDLESS = {**REQUEST, "context": {"device": "desktop"}}

Predict = Callable[[dict[str, Any]], dict[str, Any]]
Deploy = Callable[[Path], tuple[Predict, ExecutionEnvironment]]


@pytest.fixture(scope="module")
def endless_loop(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime can end its runs."""
    return endless.for_desktops(demo_bundle, tmp_path_factory.mktemp("loop") / "b", endless.LOOP)


@pytest.fixture(scope="module")
def endless_operator(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody can end its runs."""
    directory = tmp_path_factory.mktemp("operator") / "b"
    return endless.for_desktops(demo_bundle, directory, endless.OPERATOR)


@pytest.fixture
def deploy(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Deploy]:
    environments: list[ExecutionEnvironment] = []
    event = json.loads((EVENTS / "predict.json").read_bytes())

    def deployed(bundle: Path) -> tuple[Predict, ExecutionEnvironment]:
        function = Function(FUNCTION, {"MODEL_URI": str(bundle)} | BUDGET, timeout_s=LONGEST_S)
        directory = tmp_path / str(len(environments))
        directory.mkdir()
        log, temporary = directory / "environment.log", directory / "tmp"
        environment = runner.run(ExecutionEnvironment.start(function, log=log, temporary=temporary))
        environments.append(environment)

        def predict(request: dict[str, Any]) -> dict[str, Any]:
            body = event | {"body": json.dumps(request)}
            response: dict[str, Any] = json.loads(
                runner.run(environment.invoke(json.dumps(body).encode()))
            )
            return response

        return predict, environment

    yield deployed
    for environment in environments:
        runner.run(environment.stop())


def test_on_lambda_a_run_past_the_deadline_is_ended_and_answered_504(
    deploy: Deploy, endless_loop: Path
) -> None:
    predict, _ = deploy(endless_loop)
    responses = [predict(request) for request in (ENDLESS, REQUEST, ENDLESS, REQUEST)]
    assert [response["statusCode"] for response in responses] == [504, 200, 504, 200]
    assert Problem.model_validate_json(responses[0]["body"]).title == "Request ran out of time"


def test_on_lambda_a_run_that_nobody_can_end_is_answered_504_and_takes_its_process_with_it(
    deploy: Deploy, endless_loop: Path, endless_operator: Path
) -> None:
    ordinary = deploy(endless_loop)[0](ENDLESS)
    predict, environment = deploy(endless_operator)
    assert predict(REQUEST)["statusCode"] == 200
    response = predict(ENDLESS)
    assert _without_id(response) == _without_id(ordinary)
    assert predict(REQUEST)["statusCode"] == 200
    lines = environment.log.read_text()
    assert lines.count('"an inference hangs: the process ends"') == 1
    assert "the request got no response" not in lines
    assert lines.count('"model loaded"') == 2  # by another process
    (line,) = (json.loads(t) for t in lines.splitlines() if '"status":504' in t)
    assert line["request_id"] == Problem.model_validate_json(response["body"]).request_id
    assert (line["error"], line["route"]) == ("DeadlineExceededError", "/predict")


def _without_id(response: dict[str, Any]) -> dict[str, Any]:
    body = json.loads(response["body"])
    request_id = body.pop("request_id")
    assert response["headers"]["x-request-id"] == request_id
    return response | {"body": body, "headers": response["headers"] | {"x-request-id": ""}}


def test_under_uvicorn_a_run_is_ended_beside_the_event_loop_and_on_it(endless_loop: Path) -> None:
    with uvicorn(endless_loop, **BUDGET) as server, ThreadPoolExecutor() as pool:
        statuses = []
        for _ in range(2):  # first its pace isn't known; then it's brief
            late = pool.submit(_ask, server.url, ENDLESS)
            others = [httpx2.get(f"{server.url}/live").status_code for _ in range(3)]
            statuses += [*others, late.result(), _ask(server.url, REQUEST)]
        health = httpx2.get(f"{server.url}/health").json()
    assert statuses == [200, 200, 200, 504, 200] * 2
    assert health["status"] == "healthy"


def test_under_uvicorn_a_run_that_nobody_can_end_fails_the_probes_and_keeps_no_one_waiting(
    endless_operator: Path,
) -> None:
    with uvicorn(endless_operator, **BUDGET) as server, ThreadPoolExecutor() as pool:
        late = pool.submit(_ask, server.url, ENDLESS)
        assert _probes(server.url) == [200, 200, 200]
        assert late.result() == 504
        assert _ask(server.url, REQUEST) == 504  # it waits for the run
        until_s = monotonic() + LONGEST_S
        while httpx2.get(f"{server.url}/live").status_code == 200 and monotonic() < until_s:
            pass
        assert _probes(server.url) == [503, 503, 503]
        assert httpx2.get(f"{server.url}/metrics").status_code == 200


def _ask(url: str, request: dict[str, Any]) -> int:
    return int(httpx2.post(f"{url}/predict", json=request, timeout=LONGEST_S).status_code)


def _probes(url: str) -> list[int]:
    return [httpx2.get(f"{url}/{name}").status_code for name in ("live", "ready", "health")]
