"""The routes beside /predict, and the base path before them."""

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest
from starlette.testclient import TestClient

import clients
import fakes
from clients import REQUEST, problem
from feedrank.errors import BundleError
from feedrank.http.schemas import About, ContainerMetrics, Health, ModelCard, Probe
from feedrank.model.inference import HUNG_S, Inference, watchdog
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot


@pytest.fixture(scope="module")
def client() -> TestClient:
    return clients.client(fakes.model())


def test_health_tells_a_healthy_container() -> None:
    client = clients.client(fakes.model())
    before = client.get("/health").json()
    client.post("/predict", json=REQUEST)
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
    response = clients.client(None).get("/health")
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
    assert client.post("/predict", json=REQUEST).json()["degraded"] == ["model:layer"]
    clock.now_s += 5
    healthy = client.get("/health").json()
    assert (healthy["status"], healthy["model_version"]) == ("healthy", "feed_ranker-3")
    assert client.post("/predict", json=REQUEST).json()["degraded"] == []


@pytest.fixture
def late_run() -> Iterator[Inference]:
    """A run of a request's that is under way, past its deadline by a second."""
    run = Inference(perf_counter() - 1, "server", None)
    watchdog.begin(run)
    yield run
    watchdog.end(run)


def _probes(client: TestClient) -> dict[str, tuple[int, str]]:
    responses = {path: client.get(path) for path in ("/health", "/live", "/ready")}
    return {
        path: (response.status_code, response.json()["status"])
        for path, response in responses.items()
    }


def test_a_run_past_its_deadline_degrades_and_one_that_hangs_fails_every_probe(
    late_run: Inference,
) -> None:
    client = clients.client(fakes.model())
    assert _probes(client) == {
        "/health": (200, "degraded"), "/live": (200, "ok"), "/ready": (200, "ok")
    }  # fmt: skip
    late_run.late_s = HUNG_S
    assert _probes(client) == {
        "/health": (503, "unhealthy"), "/live": (503, "hung"), "/ready": (503, "hung")
    }  # fmt: skip
    watchdog.end(late_run)
    assert _probes(client) == {
        "/health": (200, "healthy"), "/live": (200, "ok"), "/ready": (200, "ok")
    }  # fmt: skip


def test_without_a_model_a_process_is_alive_and_not_ready() -> None:
    client = clients.client(None)
    assert _probes(client) == {
        "/health": (503, "unhealthy"), "/live": (200, "ok"), "/ready": (503, "unavailable")
    }  # fmt: skip
    for path in ("/live", "/ready"):
        Probe.model_validate_json(client.get(path).content, strict=True)


def test_health_does_not_count_as_a_request() -> None:
    client = clients.client(fakes.model())
    for path in ("/health", "/metrics", "/model", "/", "/nothing"):
        client.get(path)
    assert client.get("/metrics").json()["requests_total"] == 0


def test_metrics_tell_what_this_container_served() -> None:
    client = clients.client(fakes.model())
    client.post("/predict", json=REQUEST)
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
    client = clients.client(fakes.model(fakes.RaisingEngine(ZeroDivisionError())))
    client.post("/predict", json=REQUEST)
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
        "features": {},
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
    client = clients.client(fakes.model(), BASE_PATH=base_path)
    about = About.model_validate_json(client.get(f"{base_path}/").content)
    assert (about.name, about.docs) == ("feedrank", docs)
    page = client.get(docs)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/predict", "/prod/predict"])
def test_the_base_path_may_stand_before_a_route(path: str) -> None:
    client = clients.client(fakes.model(), BASE_PATH="/prod")
    assert client.post(path, json=REQUEST).status_code == 200
    assert client.get("/metrics").json()["requests_total"] == 1


@pytest.mark.parametrize(
    "path", ["/product", "/prodpredict", "/prod/prod/predict", "/prodhealth", "/pro/predict"]
)
def test_the_base_path_ends_at_a_slash(path: str) -> None:
    client = clients.client(fakes.model(), BASE_PATH="/prod")
    problem(client.post(path, json=REQUEST), 404)


def test_behind_a_base_path_the_document_names_it_as_the_server() -> None:
    document = clients.client(fakes.model(), BASE_PATH="/prod").get("/prod/openapi.json").json()
    assert [server["url"] for server in document["servers"]] == ["/prod"]


def test_the_docs_page_can_not_be_framed(client: TestClient) -> None:
    headers = client.get("/docs").headers
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
