"""The HTTP front over a function that is faked."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from feedops import gateway
from feedops.errors import EnvironmentLostError, FunctionError, FunctionTimeoutError, ThrottledError
from feedops.front import Front, serving
from feedops.processes import LOCALHOST, reserve

Invoke = Callable[[bytes], Awaitable[bytes]]


def ask(invoke: Invoke, method: str = "GET", timeout_s: float = 30.0, **request: Any) -> Any:
    """Status, headers and body of what the front answers."""

    async def exchange() -> tuple[int, dict[str, str], bytes]:
        with reserve(LOCALHOST, 0) as bound:
            url = f"http://{LOCALHOST}:{bound.getsockname()[1]}/a%20b?x=1&x=2"
            async with (
                serving(Front(invoke, timeout_s), bound),
                aiohttp.ClientSession() as client,
                client.request(method, url, **request) as response,
            ):
                return response.status, dict(response.headers), await response.read()

    return asyncio.run(exchange())


def raising(error: Exception) -> Invoke:
    async def invoke(_event: bytes) -> bytes:
        raise error

    return invoke


async def echo(event: bytes) -> bytes:
    return json.dumps({"statusCode": 200, "body": event.decode()}).encode()


async def never(_event: bytes) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def malformed(_event: bytes) -> bytes:
    return b'{"statusCode": "fine"}'


def test_the_request_reaches_the_function_as_it_was_sent() -> None:
    status, headers, body = ask(echo, "POST", data=b'{"a": 1}', cookies={"session": "1"})
    event = json.loads(body)
    assert status == 200
    assert event["rawPath"] == "/a b"
    assert event["rawQueryString"] == "x=1&x=2"
    assert event["cookies"] == ["session=1"]
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["requestId"] == headers["apigw-requestid"]


def test_a_compressed_request_is_left_to_the_function() -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    _, _, body = ask(echo, "POST", data=b"\x1f\x8b not gzip", headers=headers)
    assert json.loads(body)["isBase64Encoded"] is True


def test_a_head_request_gets_the_headers_alone() -> None:
    status, headers, body = ask(echo, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ThrottledError("busy"), gateway.TOO_MANY),
        (FunctionError("ValueError", "a secret"), gateway.INTERNAL_ERROR),
        (FunctionTimeoutError("Sandbox.Timedout", "late"), gateway.INTERNAL_ERROR),
        (EnvironmentLostError("Runtime.ExitError", "gone"), gateway.INTERNAL_ERROR),
    ],
)
def test_a_function_that_fails_is_answered_as_api_gateway_does(
    error: Exception, failure: gateway.HttpResponse
) -> None:
    status, headers, body = ask(raising(error))
    assert (status, body) == (failure.status, failure.body)
    assert headers.items() >= {k.title(): v for k, v in failure.headers}.items()


def test_an_answer_that_is_none_is_an_internal_error() -> None:
    status, _, body = ask(malformed)
    assert (status, body) == (500, gateway.INTERNAL_ERROR.body)


def test_a_function_that_takes_too_long_is_unavailable() -> None:
    status, _, body = ask(never, timeout_s=0.01)
    assert (status, body) == (503, b'{"message": "Service Unavailable"}')


def test_a_function_goes_on_when_its_caller_has_gone() -> None:
    started, finish = asyncio.Event(), asyncio.Event()
    finished: list[bytes] = []

    async def slow(event: bytes) -> bytes:
        started.set()
        await finish.wait()
        finished.append(event)
        return b"{}"

    async def hang_up() -> None:
        with reserve(LOCALHOST, 0) as bound:
            url = f"http://{LOCALHOST}:{bound.getsockname()[1]}/"
            async with serving(Front(slow), bound):
                async with aiohttp.ClientSession() as client:
                    request = asyncio.create_task(client.get(url))
                    await started.wait()
                    request.cancel()
                finish.set()

    asyncio.run(hang_up())
    assert len(finished) == 1


@pytest.mark.parametrize(
    "size",
    [
        gateway.LARGEST_REQUEST_BYTES + 1,
        gateway.LARGEST_EVENT_BYTES - 100,  # fits the gateway; with the headers, not the function
    ],
)
def test_a_request_that_is_too_large_does_not_reach_the_function(size: int) -> None:
    headers = {"content-type": "text/plain"}
    sent = BytesIO(b"x" * size)
    status, _, body = ask(raising(AssertionError()), "POST", data=sent, headers=headers)
    assert (status, body) == (413, b'{"message": "Request Entity Too Large"}')
