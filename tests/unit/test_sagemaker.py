"""What SageMaker calls: two routes, which a setting switches on, and the trace id of a caller."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

import clients
import fakes
from clients import REQUEST, problem
from feedrank.errors import SettingsError
from feedrank.extensions import load_extensions
from feedrank.http.fast_path import DIRECT, App
from feedrank.http.routes import ROUTES, SAGEMAKER, routes_of
from feedrank.http.sagemaker import TraceAttributes

ON = {"SAGEMAKER": "on"}
SCOPE = {"type": "http", "method": "POST", "headers": [], "root_path": ""}
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
HEX = "5759e988bd862e3fe1be46a994272793"
XRAY = f"1-{HEX[:8]}-{HEX[8:]}"
TRACES = {
    f"Root={XRAY}": XRAY,
    f"Root={XRAY};Parent=53995c3f42cd8ad8;Sampled=1": XRAY,
    f"Self=1-67891234-12456789abcdef012345678;Root={XRAY}": XRAY,
    XRAY: XRAY,
    f"00-{HEX}-00f067aa0ba902b7-01": XRAY,
}
OTHERS = ["", "SECRET", f"key={XRAY}", f"Root={XRAY}SECRET", f"00-{HEX}-SECRET", "a" * 1_024]


@pytest.fixture
def client() -> TestClient:
    return TestClient(TraceAttributes(fakes.app(fakes.model(), **ON)))


def test_off_there_is_neither_route() -> None:
    client = clients.client(fakes.model())
    problem(client.get("/ping"), 404)
    problem(client.post("/invocations", json=REQUEST), 404)
    assert routes_of(sagemaker=False) == ROUTES


def test_an_invocation_is_ranked_as_a_prediction_is(client: TestClient) -> None:
    ours, theirs = (client.post(path, json=REQUEST) for path in ("/predict", "/invocations"))
    assert (ours.status_code, theirs.status_code) == (200, 200)
    assert theirs.headers["content-type"] == "application/json"
    assert ours.json()["predictions"] == theirs.json()["predictions"]
    assert client.get("/metrics").json()["requests_total"] == 2


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 422), (b"1,2\n3,4", 422), (b" " * 70_000, 413)]
)
def test_an_invocations_errors_are_those_of_a_prediction(
    client: TestClient, content: bytes, status: int
) -> None:
    problem(client.post("/invocations", content=content), status)
    problem(client.get("/invocations"), 405)


def test_a_ping_is_answered_when_the_model_can_rank() -> None:
    responses = [clients.client(model, **ON).get("/ping") for model in (None, fakes.model())]
    assert [response.status_code for response in responses] == [503, 200]
    assert [response.json() for response in responses] == [
        clients.client(model, **ON).get("/ready").json() for model in (None, fakes.model())
    ]


def test_the_hot_route_is_the_one_that_sagemaker_calls() -> None:
    app = fakes.app(fakes.model(), **ON).app
    assert isinstance(app, App)
    direct = {}
    for path in ("/predict", "/invocations"):
        scope = {**SCOPE, "path": path}
        app.may_wait(scope)
        direct[path] = scope[DIRECT]
    assert direct == {"/predict": False, "/invocations": True}


def test_on_the_document_has_both(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    paths = document["paths"]
    assert {route.path for route in SAGEMAKER} <= set(paths)
    theirs, ours = paths["/invocations"]["post"], paths["/predict"]["post"]
    assert (
        theirs["requestBody"]["content"]["application/json"]["schema"]
        == (ours["requestBody"]["content"]["application/json"]["schema"])
    )
    ids = [o["operationId"] for operations in paths.values() for o in operations.values()]
    assert len(set(ids)) == len(ids)
    off = clients.client(fakes.model()).get("/openapi.json").json()["paths"]
    assert set(off) == set(paths) - {route.path for route in SAGEMAKER}


# ---- CustomAttributes ----------------------------------------------------------------------------


def log_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = (line for line in lines if line.get("message") == "request")
    return dict(line)


@pytest.mark.parametrize("attributes", TRACES)
def test_a_trace_id_in_the_attributes_is_logged_and_returned(
    client: TestClient, attributes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {ATTRIBUTES: attributes, "X-Amzn-Trace-Id": f"Root=1-{'0' * 8}-{'0' * 24}"}
    response = client.post("/invocations", json=REQUEST, headers=headers)
    assert response.status_code == 200
    assert response.headers[ATTRIBUTES] == f"Root={TRACES[attributes]}"
    assert log_line(capsys)["trace_id"] == TRACES[attributes]


def test_an_error_returns_it_too(client: TestClient) -> None:
    response = client.post("/invocations", content=b"", headers={ATTRIBUTES: XRAY})
    problem(response, 422)
    assert response.headers[ATTRIBUTES] == f"Root={XRAY}"


@pytest.mark.parametrize("attributes", OTHERS)
def test_other_attributes_are_neither_logged_nor_returned(
    client: TestClient, attributes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {ATTRIBUTES: attributes} if attributes else {}
    response = client.post("/invocations", json=REQUEST, headers=headers)
    assert response.status_code == 200
    assert ATTRIBUTES not in response.headers
    output = capsys.readouterr().out
    assert "SECRET" not in output
    assert '"trace_id":null' in output


# ---- With a team's own routes --------------------------------------------------------------------

ROUTER = """
from fastapi import APIRouter
router = APIRouter()

@router.get("/ping")
async def ping() -> str:
    return "own"

ROUTERS = [router]
"""


@pytest.fixture
def own_ping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_ping.py").write_text(ROUTER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_ping", raising=False)
    return "own_ping"


def test_a_teams_route_of_that_name_stays_as_long_as_sagemaker_is_off(own_ping: str) -> None:
    assert len(load_extensions(own_ping).routers) == 1
    with pytest.raises(SettingsError, match=r"GET /ping is a route of the service"):
        load_extensions(own_ping, sagemaker=True)


# ---- As the handler composes it ------------------------------------------------------------------


def test_the_handlers_app_for_a_web_server_reads_the_attributes(demo_bundle: Path) -> None:
    def served(handler: ModuleType) -> object:
        client = TestClient(handler.app())
        request = {"user_id": 42, "item_ids": [17, 256, 3]}
        response = client.post("/invocations", json=request, headers={ATTRIBUTES: XRAY})
        return client.get("/ping").status_code, response.headers.get(ATTRIBUTES)

    with fakes.container(MODEL_URI=str(demo_bundle), **ON) as handler:
        assert served(handler) == (200, f"Root={XRAY}")
    with fakes.container(MODEL_URI=str(demo_bundle)) as handler:
        assert served(handler) == (404, None)
