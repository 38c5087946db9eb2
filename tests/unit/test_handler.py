import asyncio
import base64
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import demo
import fakes
import hostile
from feedrank.domain import Call, FeatureRows, Query, Ranking
from feedrank.errors import SettingsError
from feedrank.features import FeatureStore
from feedrank.http.schemas import PredictResponse, Problem

ITEMS = [17, 256, 3, 5_000, 88, 3]
BODY = json.dumps(
    {
        "user_id": 42,
        "item_ids": ITEMS,
        "context": {"device": "mobile", "timestamp": "2026-11-22T20:15:00Z"},
    }
)
EventOf = Callable[[str, str, str | None], dict[str, Any]]


def http_api_v2(method: str, path: str, body: str | None) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "abc.execute-api.amazonaws.com"},
        "requestContext": {
            "accountId": "123456789012",
            "requestId": "v2-request",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "test",
            },
            "stage": "$default",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def function_url(method: str, path: str, body: str | None) -> dict[str, Any]:
    event = http_api_v2(method, path, body)
    event["headers"]["host"] = "abc.lambda-url.eu-west-1.on.aws"
    event["requestContext"]["domainName"] = "abc.lambda-url.eu-west-1.on.aws"
    return event


def rest_api_v1(method: str, path: str, body: str | None) -> dict[str, Any]:
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"Content-Type": "application/json", "Host": "abc.execute-api.amazonaws.com"},
        "multiValueHeaders": {"Content-Type": ["application/json"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "requestId": "v1-request",
            "stage": "prod",
            "path": f"/prod{path}",
            "identity": {"sourceIp": "192.0.2.1"},
        },
        "body": body,
        "isBase64Encoded": False,
    }


def load_balancer(method: str, path: str, body: str | None) -> dict[str, Any]:
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:x:targetgroup"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
        "headers": {
            "content-type": "application/json",
            "host": "lb.example.com",
            "x-amzn-trace-id": "Root=1-5c536348-3d683b8b04734faae651f476",
        },
        "body": body or "",
        "isBase64Encoded": False,
    }


EVENTS: list[EventOf] = [http_api_v2, rest_api_v1, function_url, load_balancer]
every_event = pytest.mark.parametrize("event_of", EVENTS, ids=lambda of: of.__name__)


@pytest.fixture(scope="module")
def handler(demo_bundle: Path) -> Iterator[ModuleType]:
    """The handler of a container that serves the demo bundle."""
    with fakes.container(MODEL_URI=str(demo_bundle), BASE_PATH="/prod") as module:
        yield module


def _call(module: ModuleType, event: dict[str, Any], remaining_ms: int = 10_000) -> dict[str, Any]:
    response: dict[str, Any] = module.lambda_handler(event, fakes.LambdaContext(remaining_ms))
    json.dumps(response)  # as the runtime client does
    assert response["isBase64Encoded"] is False
    return response


def _header(response: dict[str, Any], name: str) -> str:
    headers = {key.lower(): value for key, value in response["headers"].items()}
    return str(headers[name])


def _problem(response: dict[str, Any], status: int) -> Problem:
    problem = Problem.model_validate_json(response["body"], strict=True)
    assert response["statusCode"] == problem.status == status
    assert _header(response, "content-type") == "application/problem+json"
    assert len(response["body"].encode()) <= 1_024
    assert problem.request_id == _header(response, "x-request-id")
    assert "SECRET" not in json.dumps(response)
    return problem


@every_event
def test_every_event_gets_a_ranking_that_is_torchs(handler: ModuleType, event_of: EventOf) -> None:
    response = _call(handler, event_of("POST", "/predict", BODY))
    ranked = PredictResponse.model_validate_json(response["body"], strict=True)
    scores = demo.torch_scores("deep_mlp", demo.features_of(42, ITEMS, "mobile", 20, 6))
    expected = sorted(zip(ITEMS, scores, strict=True), key=lambda pair: -pair[1])
    assert response["statusCode"] == 200
    assert _header(response, "content-type") == "application/json"
    assert [p.item_id for p in ranked.predictions] == [item for item, _ in expected]
    assert [p.score for p in ranked.predictions] == pytest.approx(
        [score for _, score in expected], abs=1e-5
    )
    assert ranked.request_id == fakes.LambdaContext.aws_request_id
    assert _header(response, "x-request-id") == fakes.LambdaContext.aws_request_id


@every_event
def test_a_body_in_base64_is_read(handler: ModuleType, event_of: EventOf) -> None:
    event = event_of("POST", "/predict", base64.b64encode(BODY.encode()).decode())
    response = _call(handler, event | {"isBase64Encoded": True})
    assert response["statusCode"] == 200


@every_event
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (("POST", "/predict", "{}"), 422),
        (("POST", "/predict", None), 422),
        (("POST", "/predict", '{"SECRET": 1}'), 422),
        (("POST", "/predict", "SECRET" * 20_000), 413),
        (("GET", "/SECRET", None), 404),
        (("GET", "/predict/", None), 404),
        (("GET", "/product", None), 404),
        (("GET", "/predict", None), 405),
    ],
)
def test_every_event_gets_its_problem(
    handler: ModuleType, event_of: EventOf, request_: tuple[str, str, str | None], status: int
) -> None:
    response = _call(handler, event_of(*request_))
    _problem(response, status)
    assert status != 405 or _header(response, "allow") == "POST"


@every_event
@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/health", "application/json"),
        ("/metrics", "application/json"),
        ("/model", "application/json"),
        ("/", "application/json"),
        ("/openapi.json", "application/json"),
        ("/docs", "text/html; charset=utf-8"),
        ("/prod/health", "application/json"),
        ("/prod/", "application/json"),
    ],
)
def test_every_event_reaches_every_route(
    handler: ModuleType, event_of: EventOf, path: str, content_type: str
) -> None:
    response = _call(handler, event_of("GET", path, None))
    assert response["statusCode"] == 200
    assert _header(response, "content-type") == content_type


@pytest.mark.parametrize("name", hostile.INVALID)
def test_an_invalid_body_is_422_and_never_repeated(handler: ModuleType, name: str) -> None:
    body = base64.b64encode(hostile.INVALID[name]).decode()
    event = http_api_v2("POST", "/predict", body) | {"isBase64Encoded": True}
    _problem(_call(handler, event), 422)


@pytest.mark.parametrize("name", hostile.TOO_LARGE)
def test_a_body_over_the_cap_is_413(handler: ModuleType, name: str) -> None:
    body = base64.b64encode(hostile.TOO_LARGE[name]).decode()
    event = http_api_v2("POST", "/predict", body) | {"isBase64Encoded": True}
    _problem(_call(handler, event), 413)


@every_event
@pytest.mark.parametrize(
    ("name", "value"),
    [("host", "[::1]:8080"), ("host", "a:b:c"), ("host", "a:b"), ("x-forwarded-port", "port")],
)
def test_a_host_that_is_none_does_not_matter(
    handler: ModuleType, event_of: EventOf, name: str, value: str
) -> None:
    event = event_of("POST", "/predict", BODY)
    event["headers"] = {k: v for k, v in event["headers"].items() if k.lower() != "host"}
    event["headers"][name] = value
    assert _call(handler, event)["statusCode"] == 200


@every_event
@pytest.mark.parametrize("name", ["x", "user-agent", "host", "x-amzn-trace-id", "x\udce9"])
@pytest.mark.parametrize(
    "value", ["Jos\xe9", "Sr\u012bperumb\u016bd\u016br", "Jos\udce9", "\ud800", "\0"]
)
@pytest.mark.parametrize("several", [False, True])
def test_a_header_that_is_no_ascii_or_no_unicode_does_not_matter(
    handler: ModuleType, event_of: EventOf, name: str, value: str, *, several: bool
) -> None:
    event = event_of("POST", "/predict", BODY)
    event["headers"][name] = value
    if several and "version" not in event:
        event["multiValueHeaders"] = {name: [text] for name, text in event["headers"].items()}
        event["multiValueHeaders"][name] = ["Jos\xe9", value]
    response = _call(handler, event)
    assert response["statusCode"] == 200
    assert value not in json.dumps(response)


@every_event
@pytest.mark.parametrize(
    "query", ["x=%ff&x=%c3%28", ";&&=&a&=b&%&c?d", "x=\udce9", "a" * 10_000, "\0"]
)
def test_an_odd_query_does_not_matter(handler: ModuleType, event_of: EventOf, query: str) -> None:
    event = event_of("POST", "/predict", BODY)
    if "rawQueryString" in event:
        event["rawQueryString"] = query
    event["queryStringParameters"] = {"x": query, query: "x"}
    event["cookies"] = [query]
    assert _call(handler, event)["statusCode"] == 200


@every_event
@pytest.mark.parametrize("path", ["/a%ff", "/%zz%", "/\udce9", "/\0", "//a:b/[", "/" + "a" * 9_000])
def test_an_odd_path_is_404(handler: ModuleType, event_of: EventOf, path: str) -> None:
    _problem(_call(handler, event_of("POST", path, BODY)), 404)


@every_event
@pytest.mark.parametrize(
    ("change"),
    [
        {"isBase64Encoded": True, "body": "SECRET!"},
        {"body": '{"SECRET": "\ud800"}'},
    ],
    ids=["not base64", "a lone surrogate in the event"],
)
def test_a_body_that_can_not_be_decoded_is_422(
    handler: ModuleType, event_of: EventOf, change: dict[str, Any]
) -> None:
    _problem(_call(handler, event_of("POST", "/predict", None) | change), 422)


def test_the_app_is_not_started_and_stopped_around_every_event(handler: ModuleType) -> None:
    assert handler._adapter.lifespan == "off"


@pytest.mark.shortcut
def test_a_ranked_answer_takes_no_turn_of_the_event_loop(
    handler: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.get_event_loop(), "run_until_complete", None)
    ranked = _call(handler, http_api_v2("POST", "/prod/predict", BODY))
    assert ranked["statusCode"] == 200
    with pytest.raises(TypeError):
        _call(handler, http_api_v2("GET", "/health", None))


def test_a_store_that_waits_has_its_event_loop(
    handler: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FarStore:
        waits = True

        async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
            await asyncio.sleep(0)
            return await near.fetch(query, deadline_s)

    near: FeatureStore = handler.slot.model().features
    expected = _call(handler, http_api_v2("POST", "/predict", BODY))["body"]
    monkeypatch.setattr(handler.slot, "ready", replace(handler.slot.model(), features=FarStore()))
    body = _call(handler, http_api_v2("POST", "/predict", BODY))["body"]
    assert json.loads(body)["predictions"] == json.loads(expected)["predictions"]


async def _turn_of_the_loop() -> None:
    await asyncio.sleep(0)


async def _thread() -> None:
    await asyncio.to_thread(int)


@pytest.mark.shortcut
@pytest.mark.parametrize("wait", [_turn_of_the_loop, _thread])
def test_what_waits_although_it_says_that_it_does_not_gets_its_event_loop(
    demo_bundle: Path, printed: fakes.LogLines, wait: Callable[[], Awaitable[None]]
) -> None:
    """The first request is begun anew, and each after it has a loop from the start."""

    async def rank(query: Query, call: Call) -> Ranking:
        calls.append(call)
        await wait()
        return await ranked(query, call)

    calls: list[Call] = []
    with fakes.container(MODEL_URI=str(demo_bundle)) as module:
        ranked = module.ranker.rank
        module.ranker.rank = rank
        event = http_api_v2("POST", "/predict", BODY)
        statuses = [_call(module, event)["statusCode"] for _ in range(3)]
    lines = [line for line in printed() if line.get("message") == "request"]
    assert statuses == [200, 200, 200]
    assert len({id(call) for call in calls}) == 3
    assert len(calls) == 4
    assert [line["cold_start"] for line in lines] == [True, False, False]


def test_too_little_time_left_is_504(handler: ModuleType) -> None:
    _problem(_call(handler, http_api_v2("POST", "/predict", BODY), remaining_ms=40), 504)


def test_an_event_after_an_error_is_served(handler: ModuleType) -> None:
    _call(handler, http_api_v2("POST", "/predict", "\x00"))
    assert _call(handler, http_api_v2("POST", "/predict", BODY))["statusCode"] == 200


def test_the_line_of_a_request_carries_the_gateways_own_id(
    handler: ModuleType, printed: fakes.LogLines
) -> None:
    for event_of in EVENTS:
        _call(handler, event_of("POST", "/predict", BODY))
    lines = [line for line in printed() if line.get("message") == "request"]
    assert [line["correlation_id"] for line in lines] == [
        "v2-request",
        "v1-request",
        "v2-request",
        "Root=1-5c536348-3d683b8b04734faae651f476",
    ]
    assert {line["request_id"] for line in lines} == {fakes.LambdaContext.aws_request_id}
    assert "5000" not in json.dumps([line | {"_aws": None} for line in lines])


def test_what_is_logged_within_a_request_carries_its_ids(
    handler: ModuleType, monkeypatch: pytest.MonkeyPatch, log: fakes.LogLines
) -> None:
    class BrokenStore:
        waits = False

        async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
            raise ZeroDivisionError

    monkeypatch.setattr(
        handler.slot, "ready", replace(handler.slot.model(), features=BrokenStore())
    )
    _problem(_call(handler, http_api_v2("POST", "/predict", BODY)), 500)
    (line,) = [line for line in log() if line.get("message") == "request failed"]
    assert (line["request_id"], line["correlation_id"]) == (
        fakes.LambdaContext.aws_request_id,
        "v2-request",
    )


def test_a_refused_bundle_is_503_and_not_a_crash(tmp_path: Path, log: fakes.LogLines) -> None:
    with fakes.container(MODEL_URI=str(tmp_path / "nothing")) as module:
        response = _call(module, http_api_v2("POST", "/predict", BODY))
        _problem(response, 503)
        assert _header(response, "retry-after") == "5"
        health = _call(module, http_api_v2("GET", "/health", None))
        assert (health["statusCode"], json.loads(health["body"])["status"]) == (503, "unhealthy")
    assert log()[0]["reason"] == f"serving/manifest.json: not found in {tmp_path}/nothing"


def test_the_layers_bundle_stands_in_for_a_refused_one(demo_bundle: Path, tmp_path: Path) -> None:
    with fakes.container(
        MODEL_URI=str(tmp_path / "nothing"),
        MODEL_DIGEST="0" * 64,
        MODEL_FALLBACK="layer",
        MODEL_LAYER_DIR=str(demo_bundle),
    ) as module:
        health = json.loads(_call(module, http_api_v2("GET", "/health", None))["body"])
        ranked = json.loads(_call(module, http_api_v2("POST", "/predict", BODY))["body"])
    assert (health["status"], health["model_version"]) == ("degraded", "feed_ranker-1")
    assert ranked["degraded"] == ["model:layer"]


def test_garbage_is_collected_again_after_init(demo_bundle: Path) -> None:
    gc.disable()
    with fakes.container(MODEL_URI=str(demo_bundle)):
        assert gc.isenabled()


def test_wrong_settings_fail_at_init() -> None:
    with (
        pytest.raises(SettingsError, match=r"(?s)MODEL_URI.*TRACING"),
        fakes.container(MODEL_URI="", TRACING="perhaps"),
    ):
        pass


def test_a_budget_past_lambdas_own_timeout_is_named_once(
    demo_bundle: Path, log: fakes.LogLines
) -> None:
    with fakes.container(MODEL_URI=str(demo_bundle), REQUEST_TIMEOUT_MS="5000") as module:
        for _ in range(2):
            _call(module, http_api_v2("POST", "/predict", BODY), remaining_ms=5_000)
    reasons = [line["reason"] for line in log() if line["message"] == "doubtful setting"]
    assert reasons == ["REQUEST_TIMEOUT_MS: Lambda's own timeout ends a request before"]


def test_a_variable_that_is_nearly_a_setting_is_named(
    demo_bundle: Path, log: fakes.LogLines
) -> None:
    with fakes.container(MODEL_URI=str(demo_bundle), MODEL_FALBACK="layer"):
        pass
    reasons = [line["reason"] for line in log() if line["message"] == "doubtful setting"]
    assert reasons == ["MODEL_FALBACK: no setting has this name; MODEL_FALLBACK is one"]


def test_a_stream_without_a_client_is_refused_by_name(demo_bundle: Path) -> None:
    with (
        pytest.raises(SettingsError, match=r"DECISION_STREAM: .*no-such-profile"),
        fakes.container(
            MODEL_URI=str(demo_bundle), DECISION_STREAM="s", AWS_PROFILE="no-such-profile"
        ),
    ):
        pass


def test_an_init_is_counted_by_its_type(
    demo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fakes.container(
        MODEL_URI=str(demo_bundle), AWS_LAMBDA_INITIALIZATION_TYPE="provisioned-concurrency"
    ):
        pass
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "InitDuration" in line]
    assert json.loads(line)["init_type"] == "provisioned-concurrency"


def test_decisions_are_kept_in_daily_files_where_a_directory_is_given(
    demo_bundle: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "predictions"
    with fakes.container(MODEL_URI=str(demo_bundle), DECISION_LOG_DIR=str(directory)) as module:
        response = json.loads(_call(module, http_api_v2("POST", "/predict", BODY))["body"])
    (file,) = directory.iterdir()
    record = json.loads(file.read_bytes())
    by_item = {p["item_id"]: p["score"] for p in response["predictions"]}
    assert file.name == f"predictions_{response['timestamp'][:10]}.jsonl"
    assert record == {
        "record": "decision",
        "timestamp": response["timestamp"],
        "request_id": response["request_id"],
        "correlation_id": record["correlation_id"],
        "trace_id": record["trace_id"],
        "model_version": "feed_ranker-1",
        "model_digest": record["model_digest"],
        "user_id": 42,
        "item_ids": ITEMS,
        "scores": [by_item[item] for item in ITEMS],
        "ranks": record["ranks"],
        "stages": [],
        "context": {"device": "mobile", "timestamp": "2026-11-22T20:15:00Z"},
        "context_dropped": 0,
        "features": None,
        "user_hash": None,
        "feature_time": "2026-11-22T20:15:00Z",
        "unknown": {"user": False, "items": [5000]},
        "outputs": None,
        "row_sources": None,
        "degraded": [],
        "latency_ms": response["latency_ms"],
    }
    ranked = sorted(range(len(ITEMS)), key=lambda at: record["ranks"][at])
    assert [ITEMS[at] for at in ranked] == [p["item_id"] for p in response["predictions"]]
