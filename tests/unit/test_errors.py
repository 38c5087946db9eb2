import asyncio
import json
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

import fakes
from feedrank import errors
from feedrank.errors import (
    BundleError,
    DeadlineExceededError,
    FeedrankError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestError,
    RequestTooLargeError,
    ScoringError,
    SpecError,
)
from feedrank.http.problems import PROBLEM_JSON, problem
from feedrank.http.request_context import KEY, RequestContext

STATUS = {
    "FeedrankError": None,
    "SettingsError": None,
    "UnservedEventError": None,
    "RequestError": 500,
    "MalformedEventError": 400,
    "InvalidRequestError": 422,
    "RequestTooLargeError": 413,
    "ModelUnavailableError": 503,
    "SpecError": 503,
    "BundleError": 503,
    "DeadlineExceededError": 504,
    "ScoringError": 500,
    "StageError": 500,
}


def _response(error: Exception) -> tuple[dict[str, Any], dict[str, str]]:
    request = Request({"type": "http", "headers": [], KEY: RequestContext(fakes.call(), {})})
    response = asyncio.run(problem(request, error))
    body = json.loads(bytes(response.body))
    assert body["status"] == response.status_code
    return body, dict(response.headers)


def test_every_error_of_a_request_has_its_status_and_no_other_has_one() -> None:
    defined = [error for error in vars(errors).values() if isinstance(error, type)]
    tree = {
        error.__name__: getattr(error, "status", None)
        for error in defined
        if issubclass(error, FeedrankError)
    }
    assert tree == STATUS


@pytest.mark.parametrize("name", STATUS)
def test_the_docstring_draws_the_error(name: str) -> None:
    assert errors.__doc__
    assert name in errors.__doc__


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (RequestTooLargeError("SECRET"), 413, "Request body is too large"),
        (ModelUnavailableError("SECRET"), 503, "No model is available"),
        (BundleError("SECRET"), 503, "No model is available"),
        (SpecError("SECRET"), 503, "No model is available"),
        (DeadlineExceededError("SECRET"), 504, "Request ran out of time"),
        (ScoringError("SECRET"), 500, "Internal server error"),
        (RequestError("SECRET"), 500, "Internal server error"),
        (ZeroDivisionError("SECRET"), 500, "Internal server error"),
        (HTTPException(404), 404, "Not Found"),
    ],
)
def test_an_errors_own_text_stays_in_the_log(error: Exception, status: int, title: str) -> None:
    body, _ = _response(error)
    assert body == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": title,
        "request_id": "req-1",
    }


def test_an_invalid_request_is_told_what_is_wrong() -> None:
    body, headers = _response(InvalidRequestError("context.temp must be a number"))
    assert body["detail"] == "context.temp must be a number"
    assert headers["content-type"] == PROBLEM_JSON


def test_no_model_says_when_to_ask_again() -> None:
    _, headers = _response(ModelUnavailableError("none", retry_after_s=40))
    assert headers["retry-after"] == "40"


@pytest.mark.parametrize("character", ["x", '"', "é", "\U0001f600"])
def test_however_long_its_detail_an_error_stays_below_a_kilobyte(character: str) -> None:
    request = Request({"type": "http", "headers": [], KEY: RequestContext(fakes.call(), {})})
    response = asyncio.run(problem(request, InvalidRequestError(character * 5_000)))
    assert len(response.body) <= 1_024
    json.loads(bytes(response.body))
