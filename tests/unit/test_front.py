"""The HTTP front before a fake function."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from feedops.errors import EnvironmentLostError, FunctionError, FunctionTimeoutError, ThrottledError
from feedops.local import gateway
from feedops.local.front import Front, serving
from feedops.local.processes import LOCALHOST, reserve
from feedrank.settings import MAX_EVENT_BYTES

Invoke = Callable[[bytes], Awaitable[bytes]]


def send(invoke: Invoke, method: str = "GET", timeout_s: float = 30.0, **request: Any) -> Any:
    """Status, headers and body of the front's response."""

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


def send_raw(invoke: Invoke, head: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the response to a request that no client library would send."""

    async def exchange() -> bytes:
        with reserve(LOCALHOST, 0) as bound:
            async with serving(Front(invoke), bound):
                reader, writer = await asyncio.open_connection(*bound.getsockname())
                writer.write(head + b"Connection: close\r\n\r\n")
                response = await reader.read()
                writer.close()
                return response

    first, _, rest = asyncio.run(exchange()).partition(b"\r\n")
    return int(first.split()[1]), json.loads(rest.partition(b"\r\n\r\n")[2])


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


def test_the_request_reaches_the_function_unchanged() -> None:
    status, headers, body = send(echo, "POST", data=b'{"a": 1}', cookies={"session": "1"})
    event = json.loads(body)
    assert status == 200
    assert event["rawPath"] == "/a b"
    assert event["rawQueryString"] == "x=1&x=2"
    assert event["cookies"] == ["session=1"]
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["requestId"] == headers["apigw-requestid"]


def test_a_compressed_body_is_not_decompressed() -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    _, _, body = send(echo, "POST", data=b"\x1f\x8b not gzip", headers=headers)
    assert json.loads(body)["isBase64Encoded"] is True


def test_a_head_request_gets_only_the_headers() -> None:
    status, headers, body = send(echo, "HEAD")
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
def test_the_response_to_a_failed_invocation_is_api_gateways(
    error: Exception, failure: gateway.HttpResponse
) -> None:
    status, headers, body = send(raising(error))
    assert (status, body) == (failure.status, failure.body)
    assert headers.items() >= {k.title(): v for k, v in failure.headers}.items()


def test_a_malformed_response_is_an_internal_error() -> None:
    status, _, body = send(malformed)
    assert (status, body) == (500, gateway.INTERNAL_ERROR.body)


def test_a_slow_function_is_unavailable() -> None:
    status, _, body = send(never, timeout_s=0.01)
    assert (status, body) == (503, b'{"message": "Service Unavailable"}')


def test_an_invocation_goes_on_after_its_caller_hangs_up() -> None:
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
        MAX_EVENT_BYTES - 100,  # over Lambda's limit, with the headers
    ],
)
def test_a_request_that_is_too_large_does_not_reach_the_function(size: int) -> None:
    headers = {"content-type": "text/plain"}
    body = BytesIO(b"x" * size)
    status, _, response = send(raising(AssertionError()), "POST", data=body, headers=headers)
    assert (status, response) == (413, b'{"message": "Request Entity Too Large"}')


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"Jos\xe9", "Jos\xe9"),  # invalid UTF-8, so ISO-8859-1
        ("Jos\xe9".encode(), "Jos\xe9"),
        ("Sr\u012bperumb\u016bd\u016br".encode(), "Sr\u012bperumb\u016bd\u016br"),
        (b"\xff\xfe", "\xff\xfe"),
        (b"\x80abc", "\x80abc"),
        (b"\xc3", "\xc3"),
        (b"\xc0\xaf", "\xc0\xaf"),  # overlong, which UTF-8 forbids
        (b"\xed\xb3\xa9", "\xed\xb3\xa9"),  # a surrogate
        (b"\xf5\x80\x80\x80", "\xf5\x80\x80\x80"),  # beyond Unicode
        (b"a\tb", "a\tb"),
    ],
)
@pytest.mark.parametrize("name", ["x", "user-agent", "host", "cookie", "x-amzn-trace-id"])
def test_a_headers_bytes_become_text_in_the_event(name: str, sent: bytes, text: str) -> None:
    host = b"" if name == "host" else b"Host: a\r\n"
    head = b"GET /a HTTP/1.1\r\n%s%s: %s\r\n" % (host, name.encode(), sent)
    status, event = send_raw(echo, head)
    assert status == 200
    assert text == (event["cookies"][0] if name == "cookie" else event["headers"][name])


def test_header_names_are_lower_case_and_repeated_headers_are_joined() -> None:
    head = b"GET /a HTTP/1.1\r\nhOsT: a\r\nX-oDD: 1\r\nx-Odd: Jos\xe9\r\nX-ODD:\r\n"
    assert (
        send_raw(echo, head)[1]["headers"].items() >= {"host": "a", "x-odd": "1,Jos\xe9,"}.items()
    )


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a%ffb", "/a%ffb", ""),
        ("/a%zz%", "/a%zz%", ""),
        ("/a%00", "/a\x00", ""),
        ("/a?x=%ff&x=%c3%28", "/a", "x=%ff&x=%c3%28"),
        ("/a?;&&=&a&=b&%&c?d", "/a", ";&&=&a&=b&%&c?d"),
        ("//a:b/[?[", "//a:b/[", "["),
    ],
)
def test_an_unusual_target_reaches_the_function(target: str, path: str, query: str) -> None:
    status, event = send_raw(echo, b"GET %s HTTP/1.1\r\nHost: a\r\n" % target.encode())
    assert (status, event["rawPath"], event["rawQueryString"]) == (200, path, query)


@pytest.mark.parametrize("long", ["target", "header"])
def test_a_head_over_api_gateways_quota_does_not_reach_the_function(long: str) -> None:
    """The quota counts the request line and the headers' values."""

    def head(size: int) -> bytes:
        counted = len("GET / HTTP/1.1" + "a" + "close")
        target, value = size - counted, 0
        if long == "header":
            target, value = value, target
        return b"GET /%s HTTP/1.1\r\nHost: a\r\nx: %s\r\n" % (b"a" * target, b"a" * value)

    assert send_raw(echo, head(10_240))[0] == 200
    assert send_raw(raising(AssertionError()), head(10_241)) == (
        431,
        {"message": "Request Header Fields Too Large"},
    )
