"""What a team's own file adds to the app: each example as its user would have it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

import fakes
from clients import REQUEST
from feedrank.http.fast_path import may_wait
from feedrank.http.routes import ROUTES

EXAMPLES = Path(__file__).parents[1] / "examples"
KEY = {"x-api-key": "good"}
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/predict", "headers": []}


@contextmanager
def _extended(bundle: Path, module: str) -> Iterator[ModuleType]:
    """A container whose function has this example beside its handler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        with fakes.container(
            MODEL_URI=str(bundle), EXTENSIONS=module, TEAM_API_KEY="good"
        ) as handler:
            yield handler


@pytest.fixture(scope="module", params=["api_key", "api_key_middleware"])
def guarded(request: pytest.FixtureRequest, demo_bundle: Path) -> Iterator[ModuleType]:
    with _extended(demo_bundle, request.param) as handler:
        yield handler


@pytest.fixture(scope="module")
def with_router(demo_bundle: Path) -> Iterator[ModuleType]:
    with _extended(demo_bundle, "saved_items") as handler:
        yield handler


def _on_lambda(handler: ModuleType, method: str, path: str, **headers: str) -> dict[str, Any]:
    event = fakes.http_event(method, path, REQUEST, **headers)
    response: dict[str, Any] = handler.lambda_handler(event, fakes.LambdaContext())
    return response


CLOSED = [(route.method, route.path) for route in ROUTES if route.auth != "open"]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_without_the_key_no_route_is_served(guarded: ModuleType, method: str, path: str) -> None:
    with TestClient(guarded.app()) as client:
        refused = client.request(method, path, json=REQUEST, headers={"x-api-key": "SECRET"})
        served = client.request(method, path, json=REQUEST, headers=KEY)
    assert (refused.status_code, served.status_code) == (401, 200)
    assert "SECRET" not in refused.text


def test_on_lambda_the_key_guards_the_hot_route(guarded: ModuleType) -> None:
    assert may_wait(guarded.lambda_app, dict(SCOPE))
    responses = [_on_lambda(guarded, "POST", "/predict", **headers) for headers in ({}, KEY)]
    assert [response["statusCode"] for response in responses] == [401, 200]


def test_a_dependencys_refusal_is_a_problem_and_its_key_is_in_the_document(
    demo_bundle: Path,
) -> None:
    with _extended(demo_bundle, "api_key") as handler:
        client = TestClient(handler.app())
        refused = client.post("/predict", json=REQUEST)
        document = client.get("/openapi.json", headers=KEY).json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"] == "x-api-key is missing or wrong"
    validate(document)
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "x-api-key")
    assert document["paths"]["/predict"]["post"]["security"] == [{"APIKeyHeader": []}]


def test_probes_need_no_key_where_it_is_a_dependency(demo_bundle: Path) -> None:
    opened = [route for route in ROUTES if route.auth == "open"]
    with _extended(demo_bundle, "api_key") as handler:
        client = TestClient(handler.app())
        statuses = [client.request(route.method, route.path).status_code for route in opened]
    assert statuses == [200, 200, 200]


def test_an_added_router_is_served_beside_the_hot_route(with_router: ModuleType) -> None:
    client = TestClient(with_router.app())
    assert client.post("/saved", json={"item_id": 5}).status_code == 201
    assert client.get("/saved").json() == [5]
    wrong = client.post("/saved", json={"item_id": "SECRET"})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
    assert "SECRET" not in wrong.text
    assert not may_wait(with_router.lambda_app, dict(SCOPE))
    assert _on_lambda(with_router, "POST", "/predict")["statusCode"] == 200


def test_an_added_route_is_in_the_docs(with_router: ModuleType) -> None:
    document = TestClient(with_router.app()).get("/openapi.json").json()
    validate(document)
    assert document["paths"]["/saved"]["post"]["summary"] == "Save an item for later"
    assert "201" in document["paths"]["/saved"]["post"]["responses"]
    assert {tag for each in document["paths"]["/saved"].values() for tag in each["tags"]} == {
        "saved items"
    }


def test_a_router_is_guarded_as_our_own_routes_are(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guarded_router.py").write_text(
        "from api_key import DEPENDENCIES\nfrom saved_items import ROUTERS\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with _extended(demo_bundle, "guarded_router") as handler:
        client = TestClient(handler.app())
        statuses = [client.get("/saved", headers=headers).status_code for headers in ({}, KEY)]
    assert statuses == [401, 200]


RAW = """
from starlette.middleware import Middleware

HEADERS = [(b"content-type", b"text/plain")]
STARTS = {
    b"kept": {"type": "http.response.start", "status": 418, "headers": HEADERS},
    b"tuple": {"type": "http.response.start", "status": 418, "headers": tuple(HEADERS)},
    b"bare": {"type": "http.response.start", "status": 418},
}

class Raw:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if start := STARTS.get(dict(scope["headers"]).get(b"x-start")):
            await send(start)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self.app(dict(scope), receive, send)

MIDDLEWARE = [Middleware(Raw)]
"""


@pytest.fixture
def raw(demo_bundle: Path, tmp_path: Path) -> Iterator[ModuleType]:
    """A middleware that responds without Starlette, and goes on with a copy of the scope."""
    (tmp_path / "raw_middleware.py").write_text(RAW)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with _extended(demo_bundle, "raw_middleware") as handler:
            yield handler


def test_a_middlewares_own_response_has_the_id_of_its_request_and_no_other(raw: ModuleType) -> None:
    for start in ("kept", "kept", "tuple", "bare"):
        response = _on_lambda(raw, "POST", "/predict", **{"x-start": start})
        assert response["statusCode"] == 418
        assert response["headers"]["x-request-id"] == fakes.LambdaContext.aws_request_id


def test_behind_a_middleware_that_copies_the_scope_a_request_is_counted(
    raw: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _on_lambda(raw, "POST", "/predict")["statusCode"] == 200
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["route"], line["Errors"]) == ("/predict", 0)


NESTED = """
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

inner, outer, mounting, app = APIRouter(), APIRouter(prefix="/team"), APIRouter(), FastAPI()

@inner.post("/predict")
async def theirs():
    return "theirs"

outer.include_router(inner)
app.include_router(inner)
mounting.mount("/mounted", app)
ROUTERS = [outer, mounting]
"""
PLAIN_MIDDLEWARE = """
class Plain:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)

MIDDLEWARE = [Middleware(Plain)]
"""


@pytest.mark.parametrize("added", ["", PLAIN_MIDDLEWARE])
@pytest.mark.parametrize("path", ["/team/predict", "/mounted/predict"])
def test_a_teams_route_that_ends_in_predict_is_not_counted_as_ours(
    demo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, added: str
) -> None:
    (tmp_path / "nested.py").write_text(NESTED + added)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.delitem(sys.modules, "nested", raising=False)
        with _extended(demo_bundle, "nested") as handler:
            capsys.readouterr()
            assert _on_lambda(handler, "POST", path)["body"] == '"theirs"'
            (theirs,) = map(json.loads, capsys.readouterr().out.splitlines())
            assert _on_lambda(handler, "POST", "/predict")["statusCode"] == 200
            _record, ours = map(json.loads, capsys.readouterr().out.splitlines())
            total = handler.stats.summary()["requests_total"]
    assert (theirs["route"], "_aws" in theirs) == ("extension:/predict", False)
    assert (ours["route"], "_aws" in ours, total) == ("/predict", True, 1)
