"""Headers that belong to one connection end at the local gateway, in both directions."""

import json
from typing import Any

import pytest

from feedops.local.gateway import HttpRequest, to_event, to_response

# RFC 9110, section 7.6.1, and `Keep-Alive` of RFC 2068, section 19.7.1.
HOP_BY_HOP = [
    *("Connection", "Keep-Alive", "Proxy-Connection"),
    *("TE", "Trailer", "Transfer-Encoding", "Upgrade"),
]


@pytest.mark.parametrize("name", HOP_BY_HOP)
@pytest.mark.parametrize("change_case", [str, str.lower, str.upper])
def test_a_callers_hop_by_hop_header_is_not_in_the_event(name: str, change_case: Any) -> None:
    headers = [(change_case(name), "x"), ("X-Kept", "1")]
    event = to_event(HttpRequest("GET", "/", headers=headers), "request-1", 0.0)
    assert event["headers"]["x-kept"] == "1"
    assert name.lower() not in event["headers"]


@pytest.mark.parametrize("name", [*HOP_BY_HOP, "Content-Length"])
@pytest.mark.parametrize("change_case", [str, str.lower, str.upper])
@pytest.mark.parametrize("multiple", [False, True])
def test_a_functions_hop_by_hop_header_is_not_in_the_response(
    name: str, change_case: Any, *, multiple: bool
) -> None:
    """`Content-Length` neither: the front computes it from the decoded body."""
    key, value = ("multiValueHeaders", ["x"]) if multiple else ("headers", "x")
    response = {"statusCode": 200, key: {change_case(name): value}, "body": "hello"}
    names = [name for name, _ in to_response(json.dumps(response).encode()).headers]
    assert names == ["content-type"]
