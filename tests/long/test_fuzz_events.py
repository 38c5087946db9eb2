"""Generated events: each gets a response in its caller's format, or fails with a named error."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fakes
from feedops.errors import FunctionError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.workspace import FUNCTION
from feedrank.errors import UnservedEventError
from long import events
from long.conftest import CASES, GENEROUS, LEFT_MS, Count, Fuzz, lines_of, printing
from long.predictions import NUMBERED, WITH_EVERYTHING, Kind
from long.wire import SECRET

THROUGH_THE_EMULATOR = max(CASES // 10, 10)
STATUSES = {200, 400, 404, 405, 422}
FIELDS = {"http": {"headers", "cookies"}, "rest": {"headers", "multiValueHeaders"},
         "alb": {"headers"}, "alb, several": {"multiValueHeaders"}}  # fmt: skip
ANY_FIELDS = set().union(*FIELDS.values())


@pytest.fixture(scope="module", params=[NUMBERED, WITH_EVERYTHING], ids=lambda kind: kind.bundle)
def kind(request: pytest.FixtureRequest) -> Kind:
    parameter: Kind = request.param
    return parameter


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest, kind: Kind) -> Path:
    directory: Path = request.getfixturevalue(kind.bundle)
    return directory


@pytest.fixture(scope="module")
def handler(bundle: Path) -> Iterator[ModuleType]:
    with fakes.container(MODEL_URI=str(bundle), **GENEROUS) as module:
        yield module


def check_response(response: dict[str, Any], fields: set[str]) -> None:
    """A response that API Gateway or the load balancer accepts, without an echo of the request."""
    assert response.keys() <= {"statusCode", "body", "isBase64Encoded", *fields}
    assert type(response["statusCode"]) is int
    assert response["statusCode"] in STATUSES
    assert type(response["isBase64Encoded"]) is bool
    body = response["body"].encode()
    if response["isBase64Encoded"]:
        body = base64.b64decode(body, validate=True)
    headers = {name: [value] for name, value in (response.get("headers") or {}).items()}
    headers |= response.get("multiValueHeaders") or {}
    assert all(type(value) is str for values in headers.values() for value in values)
    assert headers["x-request-id"][0]
    assert SECRET not in json.dumps(response)
    if response["statusCode"] >= 400 and body:
        assert headers["content-type"] == ["application/problem+json"]
        assert json.loads(body)["status"] == response["statusCode"]
        assert len(body) <= 1_024


def check_lines(output: io.StringIO) -> None:
    """One JSON object per line, and nothing that a caller sent."""
    for line in lines_of(output):
        assert isinstance(json.loads(line), dict)
        assert SECRET not in line


def test_a_valid_event_gets_a_response_in_the_format_of_its_kind(
    handler: ModuleType, kind: Kind, fuzz: Fuzz, count: Count
) -> None:
    def check(case: tuple[str, Any]) -> None:
        gateway, event = case
        with printing() as output:
            response = handler.lambda_handler(event, fakes.LambdaContext(LEFT_MS))
        check_lines(output)
        check_response(json.loads(json.dumps(response)), FIELDS[gateway])
        assert response["statusCode"] != HTTPStatus.BAD_REQUEST
        count(response["statusCode"])

    fuzz(check, events.events(kind, loose=False))


def test_a_damaged_event_gets_a_response_or_a_named_error(
    handler: ModuleType, kind: Kind, fuzz: Fuzz, count: Count
) -> None:
    def check(case: tuple[str, Any]) -> None:
        refusal, response = "", {}
        with printing() as output:
            try:
                response = handler.lambda_handler(case[1], fakes.LambdaContext(LEFT_MS))
            except UnservedEventError as error:
                refusal = str(error)
        check_lines(output)
        if refusal:
            assert SECRET not in refusal
        else:
            check_response(json.loads(json.dumps(response)), ANY_FIELDS)
        count("named error" if refusal else response["statusCode"])

    fuzz(check, events.events(kind, loose=True))


def test_on_the_local_lambda_a_damaged_event_gets_a_response_or_a_named_error(
    bundle: Path, kind: Kind, tmp_path: Path, fuzz: Fuzz, count: Count
) -> None:
    """Through the emulator and the runtime client, which parse and write JSON themselves."""
    function = Function(FUNCTION, {"MODEL_URI": str(bundle), **GENEROUS}, timeout_s=60)
    with asyncio.Runner() as runner:
        environment = runner.run(
            ExecutionEnvironment.start(
                function, log=tmp_path / "environment.log", temporary=tmp_path / "tmp"
            )
        )

        def check(case: tuple[str, Any]) -> None:
            event = json.dumps(case[1]).encode()
            try:
                response = json.loads(runner.run(environment.invoke(event)))
            except FunctionError as error:
                assert str(error).startswith("UnservedEventError: ")  # noqa: PT017 one of two
                assert SECRET not in str(error)  # noqa: PT017
                count("named error")
                return
            check_response(response, ANY_FIELDS)
            count(response["statusCode"])

        try:
            fuzz(check, events.events(kind, loose=True), cases=THROUGH_THE_EMULATOR)
        finally:
            runner.run(environment.stop())
    assert SECRET not in (tmp_path / "environment.log").read_text()
