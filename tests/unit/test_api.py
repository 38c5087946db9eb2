import asyncio
import json
import time
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

import demo
import fakes
import hostile
from feedrank.bundle.layout import GOLDEN
from feedrank.domain import FeatureRows, Query
from feedrank.errors import BundleError, ScoringError
from feedrank.http.schemas import (
    About,
    ContainerMetrics,
    Health,
    ModelCard,
    PredictResponse,
    Probe,
    Problem,
)
from feedrank.model.load import Model, load_model
from feedrank.model.runs import HUNG_S, Run, watch
from feedrank.model.slot import ModelSlot
from feedrank.telemetry.logging import logger

ASKED = {"user_id": 1, "item_ids": [10, 30, 20]}
TITLES = {
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request body is too large",
    422: "Request is not valid",
    500: "Internal server error",
    503: "No model is available",
    504: "Request ran out of time",
}


def _client(loaded: Model | None, **env: str) -> TestClient:
    return TestClient(fakes.app(loaded, **env), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return _client(fakes.model())


@pytest.fixture(scope="module", params=["demo_bundle", "two_tower_bundle"])
def served(request: pytest.FixtureRequest) -> tuple[TestClient, Path]:
    """The app around a real bundle, and the bundle."""
    bundle: Path = request.getfixturevalue(request.param)
    return _client(load_model(str(bundle), "", fakes.settings())), bundle


def _problem(response: Response, status: int) -> dict[str, Any]:
    """The body, after all that every error has in common was checked."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) <= 1_024
    body: dict[str, Any] = response.json()
    Problem.model_validate(body, strict=True)
    assert body.keys() == Problem.model_fields.keys()
    assert (body["type"], body["title"], body["status"]) == ("about:blank", TITLES[status], status)
    assert body["request_id"] == response.headers["x-request-id"]
    return body


# /predict


def test_items_come_back_ranked(client: TestClient) -> None:
    response = client.post("/predict", json=ASKED)
    body = response.json()
    latency_ms, request_id = body.pop("latency_ms"), body.pop("request_id")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert body == {
        "user_id": 1,
        "predictions": [
            {"item_id": 30, "score": 0.03, "rank": 1},
            {"item_id": 20, "score": 0.02, "rank": 2},
            {"item_id": 10, "score": 0.01, "rank": 3},
        ],
        "model_version": "feed_ranker-3",
        "model_digest": "dddddddddddd",
        "timestamp": "2026-11-22T12:00:00.123Z",
        "degraded": [],
    }
    assert latency_ms > 0
    assert request_id == response.headers["x-request-id"]


def test_every_request_has_an_id_of_its_own(client: TestClient) -> None:
    ids = {client.post("/predict", json=ASKED).json()["request_id"] for _ in range(5)}
    assert len(ids) == 5


def test_equal_scores_stay_in_the_callers_order_and_duplicates_keep_their_places(
    client: TestClient,
) -> None:
    items = [700, 20, 600, 20, 700, 30]  # unknown ones score alike
    ranked = client.post("/predict", json={"user_id": 1, "item_ids": items}).json()["predictions"]
    assert [(p["item_id"], p["rank"]) for p in ranked] == [
        (700, 1), (600, 2), (700, 3), (30, 4), (20, 5), (20, 6),
    ]  # fmt: skip


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 120), min_size=1, max_size=100),
    st.dictionaries(st.just("temp"), st.floats(-1e30, 1e30).map(str)),
)
def test_every_valid_request_has_a_valid_answer(
    client: TestClient, user_id: int, item_ids: list[int], context: dict[str, str]
) -> None:
    response = client.post(
        "/predict", json={"user_id": user_id, "item_ids": item_ids, "context": context}
    )
    answer = PredictResponse.model_validate_json(response.content, strict=True)
    scores = [prediction.score for prediction in answer.predictions]
    assert response.status_code == 200
    assert answer.user_id == user_id
    assert sorted(p.item_id for p in answer.predictions) == sorted(item_ids)
    assert scores == sorted(scores, reverse=True)
    assert [p.rank for p in answer.predictions] == list(range(1, len(item_ids) + 1))


def test_an_answer_has_the_fields_of_its_schema() -> None:
    client = TestClient(fakes.app(fakes.model(), CONTEXT_CHECK="warn"))
    asked = ASKED | {"user_id": 2, "context": {"devise": "mobile"}}
    body = client.post("/predict", json=asked).json()
    assert body.keys() == PredictResponse.model_fields.keys()
    assert datetime.fromisoformat(body["timestamp"]) == fakes.NOON


def test_what_is_unknown_is_named_and_absent_where_nothing_is(client: TestClient) -> None:
    asked = {"user_id": 2, "item_ids": [10, 999, 500, 999]}
    assert client.post("/predict", json=asked).json()["unknown"] == {
        "user": True,
        "items": [999, 500],
    }
    assert "unknown" not in client.post("/predict", json=ASKED).json()


def test_dropped_items_are_named_though_nothing_is_ranked() -> None:
    client = _client(fakes.model(unknown_items="drop"))
    response = client.post("/predict", json={"user_id": 1, "item_ids": [500, 999]})
    answer = PredictResponse.model_validate_json(response.content, strict=True)
    assert (response.status_code, answer.predictions) == (200, [])
    assert response.json()["unknown"] == {"user": False, "items": [500, 999]}


def test_a_real_bundle_answers_its_golden_requests(served: tuple[TestClient, Path]) -> None:
    client, bundle = served
    cases = json.loads((bundle / GOLDEN).read_bytes())["cases"]
    assert len(cases) >= 5
    for case in cases:
        moment = datetime.fromtimestamp(case["time_s"]).astimezone().isoformat()
        asked = {
            "user_id": case["user_id"],
            "item_ids": case["item_ids"],
            "context": case["context"] | {"timestamp": moment},
        }
        answer = PredictResponse.model_validate_json(client.post("/predict", json=asked).content)
        expected = sorted(case["scores"], reverse=True)
        assert [p.score for p in answer.predictions] == pytest.approx(expected, abs=1e-5)


def test_a_served_ranking_is_torchs(served: tuple[TestClient, Path]) -> None:
    client, bundle = served
    network = "two_tower" if "two_tower" in bundle.name else "deep_mlp"
    items = [*range(1, 300, 6), 777]
    moment = {"device": "tablet", "timestamp": "2026-11-21T23:59:59.5"}  # a Saturday, UTC
    asked = {"user_id": 42, "item_ids": items, "context": moment}
    ranked = client.post("/predict", json=asked).json()["predictions"]
    scores = demo.torch_scores(network, demo.features_of(42, items, "tablet", 23, 5))
    by_item = dict(zip(items, scores, strict=True))
    assert {p["item_id"]: p["score"] for p in ranked} == pytest.approx(by_item, abs=1e-5)


@pytest.fixture
def _far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own time is 13:45 hours ahead."""
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Pacific/Chatham")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("timestamp", "hour"),
    [
        ("2026-11-22T20:15:00Z", 20),
        ("2026-11-22T20:15:00", 20),
        ("2026-11-22T20:15:00+02:00", 18),
        ("2026-11-22T20:15:00-05:30", 1),
        ("2026-11-22", 0),
    ],
)
@pytest.mark.usefixtures("_far_from_utc")
def test_a_timestamp_without_an_offset_is_utc(timestamp: str, hour: int) -> None:
    hours = []

    class HourEngine(fakes.PriceEngine):
        def score(self, inputs: Any) -> Any:
            hours.append(inputs["features"][0, 3])
            return super().score(inputs)

    client = _client(fakes.model(HourEngine()))
    client.post("/predict", json=ASKED | {"context": {"timestamp": timestamp}})
    assert hours == [hour]


def test_what_stands_in_is_named_in_the_answer() -> None:
    client = _client(fakes.model(degraded=("model:layer",)))
    assert client.post("/predict", json=ASKED).json()["degraded"] == ["model:layer"]


def test_a_record_that_can_not_be_written_does_not_fail_the_request(
    printed: fakes.LogLines,
) -> None:
    client = TestClient(fakes.app(fakes.model(), fakes.FullDisk()))
    assert client.post("/predict", json=ASKED).status_code == 200
    said = [line["message"] for line in printed() if "message" in line]
    assert said == ["model loaded", "decision record spilled", "request"]


# Errors


@pytest.mark.parametrize("name", hostile.INVALID)
def test_an_invalid_body_is_422_and_never_repeated(client: TestClient, name: str) -> None:
    response = client.post("/predict", content=hostile.INVALID[name])
    detail = _problem(response, 422)["detail"]
    assert "SECRET" not in response.text
    assert detail != TITLES[422]


@pytest.mark.parametrize("name", hostile.TOO_LARGE)
def test_a_body_over_the_cap_is_413(client: TestClient, name: str) -> None:
    response = client.post("/predict", content=hostile.TOO_LARGE[name])
    assert _problem(response, 413)["detail"] == TITLES[413]


def test_the_cap_is_the_settings() -> None:
    body = json.dumps(ASKED).encode()
    exact, below = (_client(fakes.model(), MAX_BODY_BYTES=str(len(body) - n)) for n in (0, 1))
    assert exact.post("/predict", content=body).status_code == 200
    _problem(below.post("/predict", content=body), 413)


def test_the_rest_of_a_body_over_the_cap_is_not_waited_for() -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1_000:
            sent += 1
            yield b"x" * 1_024

    assert _client(fakes.model()).post("/predict", content=endless()).status_code == 413


def test_a_body_that_is_cut_off_is_422(printed: fakes.LogLines) -> None:
    messages = iter(
        [
            {"type": "http.request", "body": b'{"user_id": 1', "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    asyncio.run(fakes.app(fakes.model())(scope, receive, send))
    assert sent[0]["status"] == 422
    lines = [(line["level"], line.get("error")) for line in printed()]
    assert ("INFO", "InvalidRequestError") in lines
    assert "ERROR" not in {level for level, _ in lines}


def test_the_problems_are_told_by_field(client: TestClient) -> None:
    wrong = {"user_id": -1, "item_ids": [1, "x", 3, None]}
    assert _problem(client.post("/predict", json=wrong), 422)["detail"] == (
        "user_id: Input should be greater than or equal to 0; "
        "item_ids.1: Input should be a valid integer; "
        "item_ids.3: Input should be a valid integer"
    )


def test_of_many_problems_the_first_five_are_told_and_the_rest_counted(client: TestClient) -> None:
    wrong = {"user_id": 1, "item_ids": [True] * 60}
    detail = _problem(client.post("/predict", json=wrong), 422)["detail"]
    assert detail.count("Input should be a valid integer") == 5
    assert detail.endswith("; and 55 more")


@pytest.mark.parametrize("value", ["warm", "nan", "1e400", "", "SECRET"])
def test_a_number_in_the_context_that_is_none_is_422(client: TestClient, value: str) -> None:
    asked = ASKED | {"context": {"temp": value}}
    detail = _problem(client.post("/predict", json=asked), 422)["detail"]
    assert detail in {
        "context.temp must be a number",
        "context.temp must be a finite 32-bit number",
    }


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("4376.0", 4376),
        ("1e3", 1_000),
        ("1E+3", 1_000),
        ("1500e-2", 15),
        ("-0.0", 0),
        ("9007199254740993.0", 9_007_199_254_740_993),
        ("9.223372036854775807e18", 2**63 - 1),
        ("0." + "0" * 400 + "7e401", 7),
    ],
)
def test_a_whole_number_may_be_written_in_any_way(
    client: TestClient, written: str, number: int
) -> None:
    body = f'{{"user_id": {written}, "item_ids": [3, {written}]}}'
    answer = client.post("/predict", content=body).json()
    assert answer["user_id"] == number
    assert sorted(p["item_id"] for p in answer["predictions"]) == sorted([3, number])


_DIGITS = st.text("0123456789", max_size=25)


@given(st.sampled_from(["", "-"]), st.integers(0, 2**64), _DIGITS, st.integers(-30, 30))
def test_a_number_is_an_id_where_json_schema_says_so(
    client: TestClient, sign: str, whole: int, fraction: str, exponent: int
) -> None:
    written = f"{sign}{whole}{'.' * bool(fraction)}{fraction}e{exponent}"
    exact = Fraction(written)
    is_id = exact.denominator == 1 and 0 <= exact < 2**63
    response = client.post("/predict", content=f'{{"user_id": {written}, "item_ids": [1]}}')
    assert response.status_code == (200 if is_id else 422)
    if is_id:
        assert response.json()["user_id"] == exact


@pytest.mark.parametrize("number", [1, 3])
def test_an_unknown_field_is_told_which_there_are(client: TestClient, number: int) -> None:
    asked = ASKED | {f"contxt{i}": {} for i in range(number)}
    detail = _problem(client.post("/predict", json=asked), 422)["detail"]
    assert detail == "body: unknown field; the fields are user_id, item_ids, context"


_marker = st.text("qzxj", min_size=12, max_size=40).map(lambda text: f"~{text}~")
_path = st.sampled_from(
    [
        ("user_id",),
        ("item_ids",),
        ("item_ids", 0),
        ("item_ids", 2),
        ("context",),
        ("context", "device"),
        ("context", "timestamp"),
        ("context", "temp"),
    ]
)


@given(_marker, _path, st.sampled_from(["value", "key", "list", "key of an object"]))
def test_a_text_anywhere_in_the_json_never_comes_back(
    client: TestClient, marker: str, path: tuple[Any, ...], how: str
) -> None:
    body: Any = {"user_id": 1, "item_ids": [1, 2, 3], "context": {"device": "mobile"}}
    place = body
    for key in path[:-1]:
        place = place[key]
    if how == "key":
        (place if isinstance(place, dict) else body)[marker] = 1
    else:
        place[path[-1]] = {"value": marker, "list": [marker], "key of an object": {marker: marker}}[
            how
        ]
    _never_repeated(client.post("/predict", json=body), marker)


@given(_marker, st.integers(0, 200), st.binary(max_size=3))
def test_a_text_anywhere_in_the_bytes_never_comes_back(
    client: TestClient, marker: str, at: int, around: bytes
) -> None:
    body = b'{"user_id": 1, "item_ids": [1, 2, 3], "context": {"device": "mobile"}}'
    spliced = body[:at] + around + marker.encode() + around + body[at:]
    _never_repeated(client.post("/predict", content=spliced), marker)


def _never_repeated(response: Response, marker: str) -> None:
    assert marker not in response.text
    assert marker not in str(response.headers)
    assert response.status_code in {200, 422}
    if response.status_code == 422:
        _problem(response, 422)


@given(st.binary(max_size=200))
def test_any_bytes_at_all_get_a_problem(client: TestClient, body: bytes) -> None:
    _problem(client.post("/predict", content=body), 422)


@pytest.mark.parametrize(
    "path",
    ["/SECRET", "/predict/", "/health/", "/predict/SECRET", "/Predict", "/docs/SECRET",
     "/redoc", "/predictions", "/..%2fpredict", "/\u00e9SECRET", "/favicon.ico"],
)  # fmt: skip
def test_another_path_is_404_and_never_repeated(client: TestClient, path: str) -> None:
    response = client.get(path, params={"q": "SECRET"}, follow_redirects=False)
    assert _problem(response, 404)["detail"] == "Not Found"
    assert "SECRET" not in response.text + str(response.headers)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict", "POST"),
        ("DELETE", "/predict", "POST"),
        ("POST", "/health", "GET"),
        ("POST", "/metrics", "GET"),
        ("PATCH", "/model", "GET"),
        ("POST", "/", "GET"),
        ("POST", "/docs", "GET"),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    _problem(response, 405)
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "error", [ScoringError("SECRET"), ZeroDivisionError("SECRET"), OSError(5, "SECRET")]
)
def test_an_unforeseen_error_is_500_and_its_text_stays_in_the_log(
    printed: fakes.LogLines, error: Exception
) -> None:
    response = _client(fakes.model(fakes.RaisingEngine(error))).post("/predict", json=ASKED)
    assert _problem(response, 500)["detail"] == TITLES[500]
    assert "SECRET" not in response.text + str(response.headers)
    assert printed()[-1]["error"] == type(error).__name__


def test_an_unforeseen_error_is_logged_with_its_traceback(log: fakes.LogLines) -> None:
    client = _client(fakes.model(fakes.RaisingEngine(ZeroDivisionError("by zero"))))
    request_id = client.post("/predict", json=ASKED).json()["request_id"]
    line = next(line for line in log() if line["message"] == "request failed")
    assert (line["level"], line["request_id"]) == ("ERROR", request_id)
    assert "ZeroDivisionError: by zero" in line["exception"]


def test_without_a_model_the_answer_is_503_and_when_to_ask_again() -> None:
    client = _client(None)
    for response in (client.post("/predict", json=ASKED), client.get("/model")):
        assert _problem(response, 503)["detail"] == TITLES[503]
        assert response.headers["retry-after"] == "5"
        assert "SECRET" not in response.text


def test_a_request_past_its_time_is_504() -> None:
    class SlowStore(fakes.FakeStore):
        waits = True

        async def fetch(self, query: Any) -> Any:
            import asyncio

            await asyncio.Event().wait()

    client = _client(fakes.model(store=SlowStore()), REQUEST_TIMEOUT_MS="10")
    _problem(client.post("/predict", json=ASKED), 504)


# The other routes


def test_health_tells_a_healthy_container() -> None:
    client = _client(fakes.model())
    before = client.get("/health").json()
    client.post("/predict", json=ASKED)
    after = client.get("/health")
    uptime_seconds = before.pop("uptime_seconds")
    assert uptime_seconds >= 0
    assert before == {
        "status": "healthy",
        "model_version": "feed_ranker-3",
        "model_digest": "dddddddddddd",
        "trained_at": "2026-11-20T06:00:00Z",
        "snapshot_as_of": "2026-11-20T00:00:00Z",
        "published_at": "2026-11-21T08:30:00Z",
        "model_loaded_at": "2026-11-22T12:00:00.123000Z",
        "last_prediction_at": None,
    }
    assert after.status_code == 200
    assert after.json()["last_prediction_at"] == "2026-11-22T12:00:00.123Z"
    assert after.headers["x-request-id"]
    Health.model_validate_json(after.content, strict=True)


def test_health_is_503_without_a_model() -> None:
    response = _client(None).get("/health")
    body = response.json()
    del body["uptime_seconds"]
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/json"
    assert body == {
        "status": "unhealthy",
        "model_version": None,
        "model_digest": None,
        "trained_at": None,
        "snapshot_as_of": None,
        "published_at": None,
        "model_loaded_at": None,
        "last_prediction_at": None,
    }
    Health.model_validate_json(response.content, strict=True)


def test_health_is_degraded_while_the_fallback_serves() -> None:
    tries = 0

    def refuse_once() -> Model:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise BundleError("serving/manifest.json: not found")
        return fakes.model()

    clock = fakes.FakeClock()
    fallback = lambda: fakes.model(version="2")  # noqa: E731
    slot = ModelSlot(refuse_once, fallback, 5, clock, start=fakes.at_once)
    slot.load()
    client = TestClient(fakes.app_of(slot))
    degraded = client.get("/health")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert degraded.json()["model_version"] == "feed_ranker-2"
    assert client.post("/predict", json=ASKED).json()["degraded"] == ["model:layer"]
    clock.now_s += 5
    healthy = client.get("/health").json()
    assert (healthy["status"], healthy["model_version"]) == ("healthy", "feed_ranker-3")
    assert client.post("/predict", json=ASKED).json()["degraded"] == []


@pytest.fixture
def late_run() -> Iterator[Run]:
    """A run of a request's that is under way, past its deadline by a second."""
    run = Run(perf_counter() - 1, "server", None)
    watch.begin(run)
    yield run
    watch.end(run)


def _probes(client: TestClient) -> dict[str, tuple[int, str]]:
    answers = {path: client.get(path) for path in ("/health", "/live", "/ready")}
    return {path: (found.status_code, found.json()["status"]) for path, found in answers.items()}


def test_a_run_past_its_deadline_degrades_and_one_that_hangs_fails_every_probe(
    late_run: Run,
) -> None:
    client = _client(fakes.model())
    assert _probes(client) == {
        "/health": (200, "degraded"), "/live": (200, "ok"), "/ready": (200, "ok")
    }  # fmt: skip
    late_run.late_s = HUNG_S
    assert _probes(client) == {
        "/health": (503, "unhealthy"), "/live": (503, "hung"), "/ready": (503, "hung")
    }  # fmt: skip
    watch.end(late_run)
    assert _probes(client) == {
        "/health": (200, "healthy"), "/live": (200, "ok"), "/ready": (200, "ok")
    }  # fmt: skip


def test_without_a_model_a_process_is_alive_and_not_ready() -> None:
    client = _client(None)
    assert _probes(client) == {
        "/health": (503, "unhealthy"), "/live": (200, "ok"), "/ready": (503, "unavailable")
    }  # fmt: skip
    for path in ("/live", "/ready"):
        Probe.model_validate_json(client.get(path).content, strict=True)


def test_health_does_not_count_as_a_request() -> None:
    client = _client(fakes.model())
    for path in ("/health", "/metrics", "/model", "/", "/nothing"):
        client.get(path)
    assert client.get("/metrics").json()["requests_total"] == 0


def test_metrics_tell_what_this_container_served() -> None:
    client = _client(fakes.model())
    client.post("/predict", json=ASKED)
    client.post("/predict", json={"user_id": 1, "item_ids": [1] * 50})
    client.post("/predict", content=b"")
    response = client.get("/metrics")
    body = response.json()
    ContainerMetrics.model_validate_json(response.content, strict=True)
    assert body.keys() == ContainerMetrics.model_fields.keys()
    assert body["latency_p50_ms"] > 0
    assert {k: body[k] for k in ("scope", "requests_total", "error_rate", "predictions_total")} == {
        "scope": "container",
        "requests_total": 3,
        "error_rate": 0.0,
        "predictions_total": 53,
    }


def test_the_error_rate_counts_failures_of_ours() -> None:
    client = _client(fakes.model(fakes.RaisingEngine(ZeroDivisionError())))
    client.post("/predict", json=ASKED)
    client.post("/predict", content=b"")
    assert client.get("/metrics").json()["error_rate"] == 0.5


def test_the_model_card_is_the_manifests_public_part(client: TestClient) -> None:
    response = client.get("/model")
    ModelCard.model_validate_json(response.content, strict=True)
    assert response.json() == {
        "name": "feed_ranker",
        "version": "3",
        "network": "deep_mlp",
        "trained_at": "2026-11-20T06:00:00Z",
        "snapshot_as_of": "2026-11-20T00:00:00Z",
        "published_at": "2026-11-21T08:30:00Z",
        "batches": True,
        "run_id": "0123456789abcdef",
        "digest": "d" * 64,
        "engine": "onnx",
        "metrics": {"test/model/auc": 0.75},
        "context": {"temp": {"type": "number"}, "timestamp": {"type": "time"}},
        "feature_spec": fakes.SMALL_SPEC,
        "built_with": {"torch": "2.13.0"},
    }


def test_a_real_bundles_card_names_no_file(served: tuple[TestClient, Path]) -> None:
    client, bundle = served
    card = ModelCard.model_validate_json(client.get("/model").content, strict=True)
    assert card.metrics == {"test/model/auc": 0.75, "test/model/ndcg_at_10": 0.5}
    assert str(bundle.parent) not in client.get("/model").text


@pytest.mark.parametrize(("base_path", "docs"), [("", "/docs"), ("/prod", "/prod/docs")])
def test_the_root_says_what_this_is_and_where_its_docs_are(base_path: str, docs: str) -> None:
    client = _client(fakes.model(), BASE_PATH=base_path)
    about = About.model_validate_json(client.get(f"{base_path}/").content)
    assert (about.name, about.docs) == ("feedrank", docs)
    page = client.get(docs)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/predict", "/prod/predict"])
def test_the_base_path_may_stand_before_a_route(path: str) -> None:
    client = _client(fakes.model(), BASE_PATH="/prod")
    assert client.post(path, json=ASKED).status_code == 200
    assert client.get("/metrics").json()["requests_total"] == 1


@pytest.mark.parametrize(
    "path", ["/product", "/prodpredict", "/prod/prod/predict", "/prodhealth", "/pro/predict"]
)
def test_the_base_path_ends_at_a_slash(path: str) -> None:
    client = _client(fakes.model(), BASE_PATH="/prod")
    _problem(client.post(path, json=ASKED), 404)


def test_behind_a_base_path_the_document_names_it_as_the_server() -> None:
    document = _client(fakes.model(), BASE_PATH="/prod").get("/prod/openapi.json").json()
    assert [server["url"] for server in document["servers"]] == ["/prod"]


# What is printed


def test_a_request_is_one_wide_line_that_holds_no_payload(
    printed: fakes.LogLines, client: TestClient
) -> None:
    asked = {"user_id": 918273645, "item_ids": [81726354], "context": {"temp": "7263.5"}}
    response = client.post("/predict?token=SECRET", json=asked, headers={"authorization": "SECRET"})
    (line,) = [line for line in printed() if "record" not in line]
    times = [line.pop(name) for name in ("latency_ms", "Latency", "FeaturesLatency")]
    times += [line.pop("ScoringLatency"), line.pop("_aws")["Timestamp"]]
    assert min(times) > 0
    assert isinstance(line.pop("cold_start"), bool)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is UTC
    assert line == {
        "level": "INFO",
        "message": "request",
        "service": "feedrank",
        "request_id": response.headers["x-request-id"],
        "correlation_id": None,
        "trace_id": None,
        "route": "/predict",
        "status": 200,
        "items": 1,
        "unknown_users": 1,
        "unknown_items": 1,
        "degraded": [],
        "model_version": "feed_ranker-3",
        "Errors": 0,
        "ItemsScored": 1,
        "UnknownUsers": 1,
        "UnknownItems": 1,
        "Degraded": 0,
        "DecisionsSpilled": 0,
        "ScoreMean": 0.5,
        "ScoreSpread": 0.0,
        "SnapshotAge": 216_000,  # from the tables' midnight to noon two days later
    }


def test_requests_side_by_side_log_their_own_ids(printed: fakes.LogLines) -> None:
    class WordyStore(fakes.FakeStore):
        """Logs a line once all have arrived."""

        waits = True

        async def fetch(self, query: Query) -> FeatureRows:
            await arrived.wait()
            logger.warning("slow", user=query.user_id)
            return await super().fetch(query)

    async def ask(user_id: int) -> None:
        body = json.dumps(ASKED | {"user_id": user_id}).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                ids[user_id] = dict(message["headers"])[b"x-request-id"].decode()

        await app({"type": "http", "method": "POST", "path": "/predict"}, receive, send)

    async def ask_all() -> None:
        asked = [asyncio.create_task(ask(user_id)) for user_id in range(4)]
        await asyncio.sleep(0)
        arrived.set()
        await asyncio.gather(*asked)

    ids: dict[int, str] = {}
    arrived = asyncio.Event()
    app = fakes.app(fakes.model(store=WordyStore()))
    asyncio.run(ask_all())
    said = [line for line in printed() if line.get("message") == "slow"]
    logged = {line["user"]: line["request_id"] for line in said}
    assert logged == ids
    assert len(set(ids.values())) == 4


def test_the_first_request_of_a_container_is_said_to_be_cold(printed: fakes.LogLines) -> None:
    client = _client(fakes.model())
    for _ in range(3):
        client.post("/predict", json=ASKED)
    cold = [line["cold_start"] for line in printed() if line.get("message") == "request"]
    assert cold == [True, False, False]


@pytest.mark.parametrize("path", ["/predict", "/SECRET", "/predict/SECRET"])
def test_a_refused_request_is_one_line_too(
    printed: fakes.LogLines, client: TestClient, path: str
) -> None:
    client.post(path, content=b'{"SECRET": "SECRET"}')
    (line,) = printed()
    assert (line["message"], line["status"]) == ("request", 422 if path == "/predict" else 404)
    assert line["error"] in {"InvalidRequestError", "HTTPException"}
    assert "SECRET" not in json.dumps(line)


def test_only_predict_is_counted_in_the_metrics(
    printed: fakes.LogLines, client: TestClient
) -> None:
    for method, path in (("GET", "/health"), ("GET", "/nothing"), ("POST", "/predict")):
        client.request(method, path)
    assert [("_aws" in line, line["route"]) for line in printed()] == [
        (False, "/health"),
        (False, "none"),
        (True, "/predict"),
    ]


def test_the_docs_page_can_not_be_framed(client: TestClient) -> None:
    headers = client.get("/docs").headers
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
