"""Events by a grammar: each gets a response in its caller's form, or a refusal that has a name."""

import asyncio
import base64
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
from long.conftest import CASES, Count, Fuzz, printing
from long.wire import SECRET

THROUGH_THE_EMULATOR = max(CASES // 10, 10)
ANSWERS = {200, 400, 404, 405, 422}
FORMS = {"http": {"headers", "cookies"}, "rest": {"headers", "multiValueHeaders"},
         "alb": {"headers"}, "alb, several": {"multiValueHeaders"}}  # fmt: skip
ANY_FORM = set().union(*FORMS.values())


@pytest.fixture(scope="module")
def handler(demo_bundle: Path) -> Iterator[ModuleType]:
    with fakes.container(MODEL_URI=str(demo_bundle)) as module:
        yield module


def check_response(answer: dict[str, Any], forms: set[str]) -> None:
    """As API Gateway and the load balancer take it, and with nothing of the request in an error."""
    assert answer.keys() <= {"statusCode", "body", "isBase64Encoded", *forms}
    assert type(answer["statusCode"]) is int
    assert answer["statusCode"] in ANSWERS
    assert type(answer["isBase64Encoded"]) is bool
    body = answer["body"].encode()
    if answer["isBase64Encoded"]:
        body = base64.b64decode(body, validate=True)
    headers = {name: [value] for name, value in (answer.get("headers") or {}).items()}
    headers |= answer.get("multiValueHeaders") or {}
    assert all(type(value) is str for values in headers.values() for value in values)
    assert headers["x-request-id"][0]
    assert SECRET not in json.dumps(answer)
    if answer["statusCode"] >= 400 and body:
        assert headers["content-type"] == ["application/problem+json"]
        assert json.loads(body)["status"] == answer["statusCode"]
        assert len(body) <= 1_024


def check_lines(printed: str) -> None:
    """One JSON object a line, and nothing that a caller sent."""
    for line in printed.splitlines():
        assert isinstance(json.loads(line), dict)
        assert SECRET not in line


def test_a_sound_event_is_answered_in_its_kinds_form(
    handler: ModuleType, fuzz: Fuzz, count: Count
) -> None:
    def check(case: tuple[str, Any]) -> None:
        kind, event = case
        with printing() as printed:
            answer = handler.lambda_handler(event, fakes.LambdaContext())
        check_lines(printed.getvalue())
        check_response(json.loads(json.dumps(answer)), FORMS[kind])
        assert answer["statusCode"] != HTTPStatus.BAD_REQUEST
        count(answer["statusCode"])

    fuzz(check, events.events(loose=False))


def test_a_damaged_event_is_answered_or_refused_by_name(
    handler: ModuleType, fuzz: Fuzz, count: Count
) -> None:
    def check(case: tuple[str, Any]) -> None:
        refused, answer = "", {}
        with printing() as printed:
            try:
                answer = handler.lambda_handler(case[1], fakes.LambdaContext())
            except UnservedEventError as error:
                refused = str(error)
        check_lines(printed.getvalue())
        if refused:
            assert SECRET not in refused
        else:
            check_response(json.loads(json.dumps(answer)), ANY_FORM)
        count("refused by name" if refused else answer["statusCode"])

    fuzz(check, events.events(loose=True))


def test_on_the_local_lambda_a_damaged_event_is_answered_or_refused_by_name(
    demo_bundle: Path, tmp_path: Path, fuzz: Fuzz, count: Count
) -> None:
    """Through the emulator and the runtime client, which have JSON of their own."""
    function = Function(FUNCTION, {"MODEL_URI": str(demo_bundle)}, timeout_s=60)
    with asyncio.Runner() as runner:
        environment = runner.run(
            ExecutionEnvironment.start(
                function, log=tmp_path / "environment.log", temporary=tmp_path / "tmp"
            )
        )

        def check(case: tuple[str, Any]) -> None:
            event = json.dumps(case[1]).encode()
            try:
                answer = json.loads(runner.run(environment.invoke(event)))
            except FunctionError as error:
                assert str(error).startswith("UnservedEventError: ")  # noqa: PT017 one of two
                assert SECRET not in str(error)  # noqa: PT017
                count("refused by name")
                return
            check_response(answer, ANY_FORM)
            count(answer["statusCode"])

        try:
            fuzz(check, events.events(loose=True), cases=THROUGH_THE_EMULATOR)
        finally:
            runner.run(environment.stop())
    assert SECRET not in (tmp_path / "environment.log").read_text()
