"""HTTP to Lambda events and back, as API Gateway's HTTP API does it, payload format 2.0.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from time import gmtime, strftime, time
from typing import Any
from urllib.parse import parse_qsl

from feedops.errors import MalformedResponseError

LARGEST_REQUEST_BYTES = 10 * 1_024 * 1_024  # HTTP API
LARGEST_HEAD_BYTES = 10_240  # HTTP API, request line and header values together
INTEGRATION_TIMEOUT_S = 30.0  # HTTP API
LARGEST_STATUS = 599

ACCOUNT_ID = "123456789012"
API_ID = "local"
STAGE = "$default"  # leaves no prefix in the path
ROUTE_KEY = "$default"  # the route for every request

# Any other body, a form's too, reaches the function in base64.
_TEXT = re.compile(r"text/.*|application/(json|javascript|xml|.+\+json|.+\+xml)")
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-connection"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
_JSON = "application/json"
_PLAIN = "text/plain;charset=UTF-8"
_PORT = re.compile(r":\d+$")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")  # control, lone surrogate
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, a token


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`path` is decoded, `query` is not; `headers` may repeat a name."""

    method: str
    path: str
    query: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    source_ip: str = "127.0.0.1"
    protocol: str = "HTTP/1.1"
    port: int = 80


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def to_event(request: HttpRequest, request_id: str, time_s: float) -> dict[str, Any]:
    """`time_s` is Unix time in seconds."""
    headers, cookies = _event_headers(request, time_s)
    host = _PORT.sub("", headers.get("host", ""))
    body, is_base64 = _event_body(request.body, headers.get("content-type", ""))
    event = {
        "version": "2.0",
        "routeKey": ROUTE_KEY,
        "rawPath": request.path,
        "rawQueryString": request.query,
        "cookies": cookies,
        "headers": headers,
        "queryStringParameters": _joined(parse_qsl(request.query, keep_blank_values=True)),
        "requestContext": {
            "accountId": ACCOUNT_ID,
            "apiId": API_ID,
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": request.protocol,
                "sourceIp": request.source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": ROUTE_KEY,
            "stage": STAGE,
            "time": strftime("%d/%b/%Y:%H:%M:%S +0000", gmtime(time_s)),
            "timeEpoch": int(1_000 * time_s),
        },
        "body": body,
        "isBase64Encoded": is_base64,
    }
    absent = {key for key in ("cookies", "queryStringParameters", "body") if not event[key]}
    return {key: value for key, value in event.items() if key not in absent}


def example_event(method: str, path: str, body: bytes = b"") -> bytes:
    """An event with a request from this machine, JSON. A body is JSON too."""
    headers = [("host", API_ID), ("user-agent", "feedrank")]
    headers += [("accept", _JSON), ("content-type", _JSON)] if body else []
    request = HttpRequest(method, path, headers=headers, body=body)
    return json.dumps(to_event(request, new_request_id(), time())).encode()


def to_response(payload: bytes) -> HttpResponse:
    """The HTTP response of a function's return value (JSON).

    A value without a statusCode is itself the body. Raises MalformedResponseError.
    """
    result = json.loads(payload)
    if not isinstance(result, dict) or "statusCode" not in result:
        body = result if isinstance(result, str) else json.dumps(result)
        return HttpResponse(HTTPStatus.OK, (("content-type", _JSON),), _encoded(body))
    headers = [*_response_headers(result)]
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", _PLAIN))
    return HttpResponse(_status(result["statusCode"]), tuple(headers), _response_body(result))


def failure(status: HTTPStatus, message: str, *headers: tuple[str, str]) -> HttpResponse:
    """An error response of API Gateway itself."""
    body = json.dumps({"message": message}).encode()
    return HttpResponse(status, (("content-type", _JSON), *headers), body)


# The function raised, died or timed out, or returned something malformed.
INTERNAL_ERROR = failure(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error")
BAD_REQUEST = failure(HTTPStatus.BAD_REQUEST, "Bad Request")
EXPECTATION_FAILED = failure(HTTPStatus.EXPECTATION_FAILED, "Expectation Failed")
HEAD_TOO_LARGE = failure(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large"
)
TOO_LARGE = failure(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large")
TOO_MANY = failure(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", ("retry-after", "1"))
# The function took longer than API Gateway waits.
UNAVAILABLE = failure(HTTPStatus.SERVICE_UNAVAILABLE, "Service Unavailable")


def header_text(value: bytes) -> str:
    """A header's bytes as text. API Gateway decodes UTF-8 (github.com/aws/aws-lambda-rust-runtime,
    pull request 800, is AWS's fix for such an event). AWS documents nothing about other bytes; HTTP
    reads them as ISO-8859-1 (RFC 9110, 5.5)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def new_request_id() -> str:
    """As long as API Gateway's, and of the same characters."""
    return base64.b64encode(os.urandom(11)).decode()


def _event_headers(request: HttpRequest, time_s: float) -> tuple[dict[str, str], list[str]]:
    """The headers by lower-case name, repeated ones joined by commas; and the cookies."""
    pairs = [(name.lower(), value) for name, value in request.headers]
    cookies = [
        cookie.strip() for name, value in pairs if name == "cookie" for cookie in value.split(";")
    ]
    headers = _joined(
        (name, value) for name, value in pairs if name not in _HOP_BY_HOP | {"cookie"}
    )
    forwarded = headers.get("x-forwarded-for")
    trace = f"Root=1-{int(time_s):08x}-{os.urandom(12).hex()}"
    headers["content-length"] = str(len(request.body))
    headers["x-forwarded-for"] = (f"{forwarded}, " if forwarded else "") + request.source_ip
    headers["x-forwarded-port"] = str(request.port)
    headers["x-forwarded-proto"] = "http"
    headers.setdefault("x-amzn-trace-id", trace)
    return headers, [cookie for cookie in cookies if cookie]


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _event_body(body: bytes, content_type: str) -> tuple[str, bool]:
    """The body, and whether it is in base64, which it is too if it isn't UTF-8."""
    media_type = content_type.partition(";")[0].strip().lower()
    if not media_type or _TEXT.fullmatch(media_type):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), bool(body)


def _response_headers(result: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Without content-length, which follows from the decoded body."""
    single = _mapping(result, "headers")
    multiple = _mapping(result, "multiValueHeaders")
    if not all(isinstance(values, list) for values in multiple.values()):
        raise MalformedResponseError("multiValueHeaders must hold lists")
    cookies = result.get("cookies") or []
    if not isinstance(cookies, list):
        raise MalformedResponseError("cookies must be a list")
    pairs = [
        *((name, value) for name, value in single.items() if name not in multiple),
        *((name, value) for name, values in multiple.items() for value in values),
        *(("set-cookie", cookie) for cookie in cookies),
    ]
    for name, value in pairs:
        text = _text(value)
        if not _NAME.fullmatch(name) or _UNSENDABLE.search(text):
            raise MalformedResponseError(f"the header {name!r} can't be sent")
        if name.lower() not in _HOP_BY_HOP | {"content-length"}:
            yield name.lower(), text


def _mapping(result: dict[str, Any], key: str) -> dict[str, Any]:
    value = result.get(key) or {}
    if not isinstance(value, dict):
        raise MalformedResponseError(f"{key} must be an object")
    return value


def _text(value: object) -> str:
    """A JSON scalar as a header's text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise MalformedResponseError("a header's value must be a text, a number or a boolean")


def _status(value: str | float | None) -> int:
    try:
        status = int(value or "")  # "200" is allowed, too
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedResponseError("statusCode must be a number") from error
    if not HTTPStatus.OK <= status <= LARGEST_STATUS:
        raise MalformedResponseError(f"statusCode must be from 200 to {LARGEST_STATUS}")
    return status


def _response_body(result: dict[str, Any]) -> bytes:
    body = result.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedResponseError("body must be a text")
    if not result.get("isBase64Encoded"):
        return _encoded(body)
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise MalformedResponseError("body is not in base64") from error


def _encoded(text: str) -> bytes:
    """JSON can hold a lone surrogate; UTF-8 can't."""
    return text.encode(errors="replace")
