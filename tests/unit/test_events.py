"""Damaged API events get a 400 in the shape of their kind; events of others one named error."""

import base64
import copy
import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakes
import samples
from feedrank.errors import UnservedEventError
from feedrank.http.lambda_events import is_ping, kind_of

BODY = base64.b64encode(b'{"user_id": 42, "item_ids": [17, 256, 3]}').decode()
FILLED = {"method": "POST", "path": "predict", "body": BODY, "resource": "/{proxy+}",
          "dns_suffix": "amazonaws.com", "stage": "prod"}  # fmt: skip
REMOVED = object()
DAMAGES: list[Any] = [REMOVED, None, True, 5, 1.5, "", "SECRET", "\ud800", [], [None], ["SECRET"],
                      [[{}]], {}, {"SECRET": None}, {"SECRET": {"SECRET": [1]}}]  # fmt: skip
HARMLESS = {200, 404, 405, 422}
Place = tuple[str | int, ...]


def _served(name: str) -> dict[str, Any]:
    event: dict[str, Any] = samples.sample(name, **FILLED)
    if name == samples.REST_API:
        event["queryStringParameters"] = {"foo": "bar"}  # the sample has a placeholder there
    return event


def _function_url() -> dict[str, Any]:
    event = _served(samples.HTTP_API)
    event["requestContext"]["domainName"] = "abc.lambda-url.eu-west-1.on.aws"
    del event["pathParameters"], event["stageVariables"]
    return event


def _many_headers() -> dict[str, Any]:
    """A load balancer's whose target group has multi-value headers enabled."""
    event = _served(samples.ALB)
    event["multiValueHeaders"] = {k: [v] for k, v in event.pop("headers").items()}
    event["multiValueQueryStringParameters"] = {"query": ["1234ABCD"]}
    del event["queryStringParameters"]
    return event


EVENTS = {
    "HTTP API": _served(samples.HTTP_API),
    "Function URL": _function_url(),
    "REST API": _served(samples.REST_API),
    "ALB": _served(samples.ALB),
    "ALB, multi-value": _many_headers(),
}
KINDS = dict(zip(EVENTS, ["http", "http", "rest", "alb", "alb"], strict=True))
every_kind = pytest.mark.parametrize("kind", EVENTS)


@pytest.fixture(scope="module")
def handler(demo_bundle: Path) -> Iterator[ModuleType]:
    with fakes.container(MODEL_URI=str(demo_bundle)) as module:
        yield module


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    inner: Any = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield (*place, key)
        yield from _places(part, (*place, key))


def _damaged(event: dict[str, Any], place: Place, damage: Any) -> dict[str, Any]:
    changed = copy.deepcopy(event)
    parent: Any = changed
    for key in place[:-1]:
        parent = parent[key]
    if damage is REMOVED:
        del parent[place[-1]]
    else:
        parent[place[-1]] = copy.deepcopy(damage)
    return changed


def _check_shape(kind: str, response: dict[str, Any]) -> None:
    """What AWS documents that this kind of caller takes."""
    json.dumps(response).encode()  # as the runtime client does
    allowed = {"statusCode", "headers", "body", "isBase64Encoded"}
    allowed |= {"http": {"cookies"}, "rest": {"multiValueHeaders"}, "alb": {"multiValueHeaders"}}[
        kind
    ]
    assert response.keys() <= allowed
    assert type(response["statusCode"]) is int
    assert type(response["body"]) is str
    assert type(response["isBase64Encoded"]) is bool
    headers, several = response.get("headers", {}), response.get("multiValueHeaders", {})
    assert all(type(value) is str for value in headers.values())
    assert all(type(v) is str for values in several.values() for v in values)
    if kind == "alb":
        assert ("headers" in response) != ("multiValueHeaders" in response)
    flat = {**headers, **{name: values[0] for name, values in several.items()}}
    assert flat["x-request-id"] == fakes.LambdaContext.aws_request_id
    if response["statusCode"] == 400:
        assert flat["content-type"] == "application/problem+json"
        assert json.loads(response["body"])["title"] == "Request could not be read"


@every_kind
def test_an_undamaged_event_is_ranked_in_the_shape_of_its_kind(
    handler: ModuleType, kind: str
) -> None:
    response = handler.lambda_handler(EVENTS[kind], fakes.LambdaContext())
    _check_shape(KINDS[kind], response)
    assert response["statusCode"] == 200


@every_kind
def test_whatever_one_field_holds_the_event_is_answered(
    handler: ModuleType, kind: str, printed: fakes.LogLines
) -> None:
    """Every field of it, removed and of every wrong type."""
    event, statuses = EVENTS[kind], set()
    for place in _places(event):
        for damage in DAMAGES:
            damaged = _damaged(event, place, damage)
            response = handler.lambda_handler(damaged, fakes.LambdaContext())
            _check_shape(KINDS[kind], response)
            assert "SECRET" not in json.dumps(response)
            assert response["statusCode"] in HARMLESS | {400}, (place, damage)
            statuses.add(response["statusCode"])
        printed().clear()
    assert {200, 400} <= statuses


@pytest.mark.parametrize(
    ("kind", "place", "damage"),
    [
        ("HTTP API", ("headers",), None),
        ("HTTP API", ("headers", "Header1"), 5),
        ("HTTP API", ("rawQueryString",), None),
        ("HTTP API", ("body",), {"user_id": 42}),
        ("HTTP API", ("requestContext",), None),
        ("HTTP API", ("requestContext", "http"), REMOVED),
        ("HTTP API", ("version",), REMOVED),
        ("Function URL", ("requestContext", "http", "method"), ["POST"]),
        ("REST API", ("httpMethod",), REMOVED),
        ("REST API", ("path",), REMOVED),
        ("REST API", ("resource",), REMOVED),
        ("REST API", ("requestContext",), None),
        ("ALB", ("headers",), None),
        ("ALB", ("requestContext",), None),
        ("ALB", ("requestContext",), "elb"),
        ("ALB", ("requestContext",), ["elb"]),
        ("ALB", ("httpMethod",), REMOVED),
        ("ALB, multi-value", ("multiValueHeaders",), None),
        ("ALB, multi-value", ("multiValueHeaders", "host"), None),
    ],
)
def test_a_damage_that_hides_the_request_is_400(
    handler: ModuleType, printed: fakes.LogLines, kind: str, place: Place, damage: Any
) -> None:
    damaged = _damaged(EVENTS[kind], place, damage)
    response = handler.lambda_handler(damaged, fakes.LambdaContext())
    (line,) = printed()
    _check_shape(KINDS[kind], response)
    assert response["statusCode"] == line["status"] == 400
    assert (line["error"], line["kind"]) == ("MalformedEventError", KINDS[kind])
    assert line["request_id"] == fakes.LambdaContext.aws_request_id


@given(st.data())
def test_several_damages_are_answered_or_refused_by_name(
    handler: ModuleType, data: st.DataObject
) -> None:
    event = data.draw(st.sampled_from(list(EVENTS.values())))
    for _ in range(data.draw(st.integers(1, 6))):
        places = list(_places(event))
        if places:
            place = data.draw(st.sampled_from(places))
            event = _damaged(event, place, data.draw(st.sampled_from(DAMAGES)))
    try:
        response = handler.lambda_handler(event, fakes.LambdaContext())
    except UnservedEventError:
        return
    assert response == {"warm": True} or response["statusCode"] in HARMLESS | {400}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["requestContext", "version", "resource", "headers", "path",
                                 "httpMethod", "rawPath", "body", "elb", "http", "Records"])
                | st.text(max_size=4), inner, max_size=6,
            )
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_any_json_at_all_is_answered_or_refused_by_name(handler: ModuleType, event: Any) -> None:
    try:
        response = handler.lambda_handler(event, None)
    except UnservedEventError:
        return
    assert response == {"warm": True} or response["statusCode"] in HARMLESS | {400}


# Events of others

SERVED = {samples.HTTP_API: "http", samples.REST_API: "rest", samples.ALB: "alb"}
OTHERS = [name for name in samples.names() if name not in {*SERVED, samples.SCHEDULED}]
ODD: dict[str, Any] = {
    "the console's test event": {"key1": "value1", "key2": "value2", "key3": "value3"},
    "an empty object": {},
    "a list": [{}],
    "a text": "SECRET",
    "null": None,
    "a number": 5,
    "a WebSocket API": {
        "requestContext": {"routeKey": "$default", "connectionId": "c", "stage": "prod"},
        "body": "{}",
        "isBase64Encoded": False,
    },
    "a destination's record": {
        "version": "1.0",
        "requestContext": {"requestId": "r", "functionArn": "arn", "condition": "Success"},
        "requestPayload": {},
        "responsePayload": {},
    },
    "VPC Lattice": {
        "version": "2.0",
        "path": "/predict",
        "method": "POST",
        "headers": {"host": ["a.example.com"]},
        "requestContext": {"serviceNetworkArn": "arn", "serviceArn": "arn"},
        "body": "{}",
    },
    "an authorizer of an HTTP API": {
        **EVENTS["HTTP API"], "type": "REQUEST", "routeArn": "arn", "identitySource": ["SECRET"]
    },
    "another event of EventBridge": {
        "version": "0",
        "source": "aws.ec2",
        "detail-type": "EC2 Instance State-change Notification",
        "detail": {},
    },
}  # fmt: skip


@pytest.mark.parametrize("event", [samples.sample(name) for name in OTHERS], ids=OTHERS)
def test_what_other_services_send_fails_the_invocation_by_name(
    handler: ModuleType, event: Any
) -> None:
    with pytest.raises(UnservedEventError, match="this event is not served"):
        handler.lambda_handler(event, fakes.LambdaContext())


@pytest.mark.parametrize("event", ODD.values(), ids=ODD.keys())
def test_what_is_no_apis_event_fails_the_invocation_by_name(
    handler: ModuleType, event: Any
) -> None:
    with pytest.raises(UnservedEventError) as raised:
        handler.lambda_handler(event, fakes.LambdaContext())
    assert "SECRET" not in str(raised.value)


# Pings

PINGS: dict[str, Any] = {
    "a rule with a schedule": samples.sample(samples.SCHEDULED),
    "EventBridge Scheduler": samples.sample(samples.SCHEDULED) | {"source": "aws.scheduler"},
    "by hand": {"warm": True},
}


@pytest.mark.parametrize("event", PINGS.values(), ids=PINGS.keys())
def test_a_ping_keeps_a_container_warm_and_touches_nothing(
    handler: ModuleType, printed: fakes.LogLines, monkeypatch: pytest.MonkeyPatch, event: Any
) -> None:
    monkeypatch.setattr(handler.slot, "model", None)  # whoever asks for it fails
    before = handler.stats.summary()["requests_total"]
    assert handler.lambda_handler(event, fakes.LambdaContext()) == {"warm": True}
    assert handler.lambda_handler(event, None) == {"warm": True}
    assert (handler.stats.summary()["requests_total"], printed()) == (before, [])


@pytest.mark.parametrize(
    "event", [{"warm": False}, {"warm": True, "more": 1}, {"source": [1]}, None]
)
def test_what_only_looks_like_a_ping_is_none(event: Any) -> None:
    assert not is_ping(event)


@pytest.mark.parametrize("name", SERVED)
def test_kinds_are_told_by_awss_own_samples(name: str) -> None:
    assert kind_of(samples.sample(name)) == SERVED[name]


# Without a context, and with ids that a caller chose


@every_kind
def test_an_event_without_a_context_is_served(handler: ModuleType, kind: str) -> None:
    first, second = (handler.lambda_handler(EVENTS[kind], None) for _ in range(2))
    ids = [json.loads(response["body"])["request_id"] for response in (first, second)]
    assert [first["statusCode"], second["statusCode"]] == [200, 200]
    assert len(set(ids)) == 2


HALF: dict[str, Any] = {
    "an object": object(),
    "no clock": SimpleNamespace(aws_request_id="ours"),
    "no id": SimpleNamespace(get_remaining_time_in_millis=lambda: 9_000),
    "a mock": Mock(),
    "a clock that is a number": SimpleNamespace(get_remaining_time_in_millis=9_000),
    "a dictionary": {"aws_request_id": "ours"},
    **{
        f"time left {left_ms!r}": SimpleNamespace(
            get_remaining_time_in_millis=lambda left_ms=left_ms: left_ms
        )
        for left_ms in ("9000", None, math.nan, math.inf, 10**400, True + 9_000, 9_000.5)
    },
    **{
        f"id {request_id!r}": SimpleNamespace(aws_request_id=request_id)
        for request_id in ("", None, 5, "\ud800", "a\r\nb: c", b"id")
    },
}


@pytest.mark.parametrize("context", HALF.values(), ids=[name[:40] for name in HALF])
@every_kind
def test_half_a_context_is_served(handler: ModuleType, kind: str, context: Any) -> None:
    response = handler.lambda_handler(EVENTS[kind], context)
    own = getattr(context, "aws_request_id", None)
    request_id = json.loads(response["body"])["request_id"]
    assert response["statusCode"] == 200
    assert request_id == own if own == "ours" else uuid.UUID(request_id)


@pytest.mark.parametrize("left_ms", [0, -1, -math.inf, 49.5, -1e300])
def test_a_context_that_says_time_is_up_gets_504(handler: ModuleType, left_ms: float) -> None:
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: left_ms)
    assert handler.lambda_handler(EVENTS["HTTP API"], context)["statusCode"] == 504


def test_a_damaged_event_without_a_context_has_an_id_of_its_own(handler: ModuleType) -> None:
    damaged = _damaged(EVENTS["HTTP API"], ("headers",), None)
    first, second = (handler.lambda_handler(damaged, None) for _ in range(2))
    ids = {response["headers"]["x-request-id"] for response in (first, second)}
    assert [first["statusCode"], second["statusCode"]] == [400, 400]
    assert len({uuid.UUID(each) for each in ids}) == 2


ROOT = "Root=1-5c536348-3d683b8b04734faae651f476"


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (ROOT, ROOT),
        (f"Self=1-67891234-12456789abcdef012345678a;{ROOT};SECRET=SECRET", ROOT),
        (f"{ROOT};Parent=53995c3f42cd8ad8;Sampled=1", ROOT),
        ("SECRET", None),
        (f"SECRET{ROOT}", None),
        (f"{ROOT}SECRET", None),
        ("Root=1-5c536348-SECRET", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("form", ["headers", "multiValueHeaders"])
def test_a_load_balancers_trace_id_is_logged_where_it_is_one(
    handler: ModuleType, printed: fakes.LogLines, form: str, sent: str, logged: str | None
) -> None:
    event = copy.deepcopy(EVENTS["ALB" if form == "headers" else "ALB, multi-value"])
    event[form]["x-amzn-trace-id"] = sent if form == "headers" else [sent]
    handler.lambda_handler(event, fakes.LambdaContext())
    (line,) = [line for line in printed() if line.get("message") == "request"]
    assert line["correlation_id"] == logged
    assert "SECRET" not in json.dumps(line)


def test_on_lambda_the_trace_id_is_lambdas_own_whatever_the_caller_sends(
    handler: ModuleType, printed: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = _damaged(EVENTS["ALB"], ("headers", "x-amzn-trace-id"), ROOT)
    lambdas = "1-6b034d44-3f5b8a1c2d4e6f708192a3b4"
    handler.lambda_handler(event, fakes.LambdaContext())
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={lambdas};Parent=53995c3f42cd8ad8;Sampled=1")
    handler.lambda_handler(event, fakes.LambdaContext())
    sent = ROOT.removeprefix("Root=")
    lines = printed()
    for kind in ("message", "record"):
        assert [line["trace_id"] for line in lines if kind in line] == [sent, lambdas]
        assert {line["correlation_id"] for line in lines if kind in line} == {ROOT}
