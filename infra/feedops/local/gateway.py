"""What API Gateway's HTTP API does between a caller and a function, payload format 2.0.

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

from feedops.errors import MalformedAnswerError

LARGEST_REQUEST_BYTES = 10 * 1_024 * 1_024  # HTTP API
LARGEST_HEAD_BYTES = 10_240  # HTTP API, request line and header values together
LARGEST_EVENT_BYTES = 6 * 1_024 * 1_024  # Lambda, synchronous invocation
INTEGRATION_TIMEOUT_S = 30.0  # HTTP API
LARGEST_STATUS = 599

ACCOUNT_ID = "123456789012"
API_ID = "local"
STAGE = "$default"  # leaves no prefix in the path
ROUTE_KEY = "$default"  # the one that takes every request

# Everything else, forms too, reaches the function in base64.
_TEXT = re.compile(r"text/.*|application/(json|javascript|xml|.+\+json|.+\+xml)")
_BETWEEN_HOPS = {
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
    """`path` is decoded, `query` is not, `headers` are as they came, repeated ones too."""

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


def example_event(method: str, path: str) -> bytes:
    """An event as it comes from a caller on this machine."""
    request = HttpRequest(method, path, headers=[("host", API_ID), ("user-agent", "feedrank")])
    return json.dumps(to_event(request, new_request_id(), time())).encode()


def to_response(payload: bytes) -> HttpResponse:
    """The HTTP response that a function's answer (JSON) stands for.

    Without a statusCode the answer itself is the body. Raises MalformedAnswerError.
    """
    answer = json.loads(payload)
    if not isinstance(answer, dict) or "statusCode" not in answer:
        body = answer if isinstance(answer, str) else json.dumps(answer)
        return HttpResponse(HTTPStatus.OK, (("content-type", _JSON),), _encoded(body))
    headers = [*_response_headers(answer)]
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", _PLAIN))
    return HttpResponse(_status(answer["statusCode"]), tuple(headers), _response_body(answer))


def failure(status: HTTPStatus, message: str, *headers: tuple[str, str]) -> HttpResponse:
    """What API Gateway itself answers."""
    body = json.dumps({"message": message}).encode()
    return HttpResponse(status, (("content-type", _JSON), *headers), body)


# A function that raised, died or ran out of its own time; a malformed answer.
INTERNAL_ERROR = failure(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error")
HEAD_TOO_LARGE = failure(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large"
)
TOO_LARGE = failure(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large")
TOO_MANY = failure(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", ("retry-after", "1"))
# A function that API Gateway waited too long for.
UNAVAILABLE = failure(HTTPStatus.SERVICE_UNAVAILABLE, "Service Unavailable")


def header_text(value: bytes) -> str:
    """A header's bytes as an event's text, which is Unicode. Events show UTF-8 as the characters
    that it stands for (github.com/aws/aws-lambda-rust-runtime, pull request 800, is AWS's mend for
    such an event). Of other bytes AWS says nothing: HTTP reads them as ISO-8859-1 (RFC 9110, 5.5).
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def new_request_id() -> str:
    """As long, and of the same letters, as API Gateway's."""
    return base64.b64encode(os.urandom(11)).decode()


def _event_headers(request: HttpRequest, time_s: float) -> tuple[dict[str, str], list[str]]:
    """Lower-case names, repeated ones joined by commas, and the cookies on their own."""
    sent = [(name.lower(), value) for name, value in request.headers]
    cookies = [
        each.strip() for name, value in sent if name == "cookie" for each in value.split(";")
    ]
    headers = _joined(
        (name, value) for name, value in sent if name not in _BETWEEN_HOPS | {"cookie"}
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
    """The body, and whether it is in base64. What can't be text is not, whatever it says."""
    media_type = content_type.partition(";")[0].strip().lower()
    if not media_type or _TEXT.fullmatch(media_type):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), bool(body)


def _response_headers(answer: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """`content-length` is left out: it follows from the body, and that may be in base64."""
    single = _mapping(answer, "headers")
    multiple = _mapping(answer, "multiValueHeaders")
    if not all(isinstance(values, list) for values in multiple.values()):
        raise MalformedAnswerError("multiValueHeaders must hold lists")
    cookies = answer.get("cookies") or []
    if not isinstance(cookies, list):
        raise MalformedAnswerError("cookies must be a list")
    pairs = [
        *((name, value) for name, value in single.items() if name not in multiple),
        *((name, value) for name, values in multiple.items() for value in values),
        *(("set-cookie", cookie) for cookie in cookies),
    ]
    for name, value in pairs:
        text = _text(value)
        if not _NAME.fullmatch(name) or _UNSENDABLE.search(text):
            raise MalformedAnswerError(f"the header {name!r} can't be sent")
        if name.lower() not in _BETWEEN_HOPS | {"content-length"}:
            yield name.lower(), text


def _mapping(answer: dict[str, Any], key: str) -> dict[str, Any]:
    value = answer.get(key) or {}
    if not isinstance(value, dict):
        raise MalformedAnswerError(f"{key} must be an object")
    return value


def _text(value: object) -> str:
    """A JSON scalar as a header's text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise MalformedAnswerError("a header's value must be a text, a number or a boolean")


def _status(value: Any) -> int:  # noqa: ANN401 what the function gave
    try:
        status = int(value)  # "200" is taken too
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedAnswerError("statusCode must be a number") from error
    if not HTTPStatus.OK <= status <= LARGEST_STATUS:
        raise MalformedAnswerError(f"statusCode must be from 200 to {LARGEST_STATUS}")
    return status


def _response_body(answer: dict[str, Any]) -> bytes:
    body = answer.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedAnswerError("body must be a text")
    if not answer.get("isBase64Encoded"):
        return _encoded(body)
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise MalformedAnswerError("body is not in base64") from error


def _encoded(text: str) -> bytes:
    """JSON can hold a lone surrogate; UTF-8 can't."""
    return text.encode(errors="replace")
