"""HTTP requests to events, and results to responses, as API Gateway's HTTP API does it."""

import base64
import json
import re
from http import HTTPStatus
from typing import Any

import pytest

from feedops.errors import MalformedResponseError
from feedops.local import gateway
from feedops.local.gateway import HttpRequest, HttpResponse, to_event, to_response

TIME_S = 1_795_378_500.5  # 2026-11-22 20:15:00.5 UTC
TRACE = ("X-Amzn-Trace-Id", "Root=1-6b034d84-000000000000000000000000")


def event(**request: Any) -> dict[str, Any]:
    request.setdefault("headers", ())
    request["headers"] = (*request["headers"], TRACE)
    request.setdefault("method", "POST")
    request.setdefault("path", "/predict")
    return to_event(HttpRequest(**request), "request-1", TIME_S)


def response(**result: Any) -> HttpResponse:
    return to_response(json.dumps(result).encode())


def test_a_request_becomes_an_event_of_payload_format_2() -> None:
    assert event(
        query="a=1&b=%20&a=2",
        headers=(
            ("Host", "feed.example.com:8000"),
            ("User-Agent", "curl/8"),
            ("Content-Type", "application/json"),
            ("Cookie", "session=1; theme=dark"),
            ("Accept", "text/html"),
            ("Accept", "application/json"),
            ("Connection", "keep-alive"),
        ),
        body=b'{"user_id": 1}',
        source_ip="203.0.113.7",
        port=8_000,
    ) == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/predict",
        "rawQueryString": "a=1&b=%20&a=2",
        "cookies": ["session=1", "theme=dark"],
        "headers": {
            "host": "feed.example.com:8000",
            "user-agent": "curl/8",
            "content-type": "application/json",
            "accept": "text/html,application/json",
            "content-length": "14",
            "x-amzn-trace-id": TRACE[1],
            "x-forwarded-for": "203.0.113.7",
            "x-forwarded-port": "8000",
            "x-forwarded-proto": "http",
        },
        "queryStringParameters": {"a": "1,2", "b": " "},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": "feed.example.com",
            "domainPrefix": "feed",
            "http": {
                "method": "POST",
                "path": "/predict",
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8",
            },
            "requestId": "request-1",
            "routeKey": "$default",
            "stage": "$default",
            "time": "22/Nov/2026:20:15:00 +0000",
            "timeEpoch": 1_795_378_500_500,
        },
        "body": '{"user_id": 1}',
        "isBase64Encoded": False,
    }


def test_an_event_has_no_key_for_what_the_request_lacks() -> None:
    bare = event(method="GET", path="/health")
    assert {"cookies", "queryStringParameters", "body"}.isdisjoint(bare)
    assert bare["rawQueryString"] == ""
    assert bare["isBase64Encoded"] is False


def test_an_empty_query_value_is_kept() -> None:
    assert event(query="flag=&x")["queryStringParameters"] == {"flag": "", "x": ""}


def test_cookies_of_several_headers_are_one_list() -> None:
    headers = (("cookie", "a=1;b=2"), ("Cookie", "c=3; "))
    assert event(headers=headers)["cookies"] == ["a=1", "b=2", "c=3"]


def test_the_callers_address_is_appended_to_x_forwarded_for() -> None:
    result = event(headers=(("X-Forwarded-For", "198.51.100.1"),), source_ip="10.0.0.1")
    assert result["headers"]["x-forwarded-for"] == "198.51.100.1, 10.0.0.1"


def test_a_request_without_a_trace_id_gets_one() -> None:
    result = to_event(HttpRequest("GET", "/"), "request-1", TIME_S)
    trace = result["headers"]["x-amzn-trace-id"]
    assert re.fullmatch(rf"Root=1-{int(TIME_S):08x}-[0-9a-f]{{24}}", trace)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/plain",
        "application/problem+json",
        "application/xml",
    ],
)
def test_a_text_body_is_unchanged(content_type: str) -> None:
    result = event(headers=(("content-type", content_type),), body="é".encode())
    assert (result["body"], result["isBase64Encoded"]) == ("é", False)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/octet-stream", b"\x00\x01"),
        ("application/x-www-form-urlencoded", b"a=1"),
        ("application/json", b"\xff\xfe"),  # declared as text, but not UTF-8
    ],
)
def test_any_other_body_is_in_base64(content_type: str, body: bytes) -> None:
    result = event(headers=(("content-type", content_type),), body=body)
    assert result["isBase64Encoded"] is True
    assert base64.b64decode(result["body"]) == body


def test_a_result_becomes_a_response() -> None:
    assert response(
        statusCode=201,
        headers={"Content-Type": "text/html", "X-Count": 3, "Content-Length": "99"},
        multiValueHeaders={"Vary": ["Accept", "Origin"]},
        cookies=["a=1; Path=/", "b=2"],
        body="<p>é</p>",
    ) == HttpResponse(
        201,
        (
            ("content-type", "text/html"),
            ("x-count", "3"),
            ("vary", "Accept"),
            ("vary", "Origin"),
            ("set-cookie", "a=1; Path=/"),
            ("set-cookie", "b=2"),
        ),
        "<p>é</p>".encode(),
    )


def test_a_body_in_base64_is_decoded() -> None:
    body = base64.b64encode(b"\x00\xff").decode()
    assert response(statusCode=200, body=body, isBase64Encoded=True).body == b"\x00\xff"


def test_a_status_alone_has_an_empty_text_body() -> None:
    plain = (("content-type", "text/plain;charset=UTF-8"),)
    assert response(statusCode="204") == HttpResponse(204, plain, b"")


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ({"rank": 1}, b'{"rank": 1}'),
        ([1, 2], b"[1, 2]"),
        ("hello", b"hello"),
        (None, b"null"),
    ],
)
def test_a_result_without_a_status_is_the_body(result: object, body: bytes) -> None:
    json_type = (("content-type", "application/json"),)
    assert to_response(json.dumps(result).encode()) == HttpResponse(200, json_type, body)


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "ok"},
        {"statusCode": None},
        {"statusCode": 99},
        {"statusCode": 600},
        {"statusCode": float("inf")},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": "%", "isBase64Encoded": True},
        {"statusCode": 200, "body": "é", "isBase64Encoded": True},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"a": "b\r\nx-injected: c"}},
        {"statusCode": 200, "headers": {"a": "\ud800"}},
        {"statusCode": 200, "multiValueHeaders": {"a": "b"}},
        {"statusCode": 200, "cookies": "a=1"},
    ],
)
def test_a_malformed_result_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(MalformedResponseError):
        response(**result)


def test_a_failure_has_api_gateways_own_body() -> None:
    failure = gateway.failure(
        HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", ("retry-after", "1")
    )
    assert failure == HttpResponse(
        429,
        (("content-type", "application/json"), ("retry-after", "1")),
        b'{"message": "Too Many Requests"}',
    )


def test_request_ids_look_like_api_gateways_and_differ() -> None:
    first, second = gateway.new_request_id(), gateway.new_request_id()
    assert first != second
    assert re.fullmatch(r"[A-Za-z0-9+/]{15}=", first)
