"""The direct way to /predict is taken only where it is all that FastAPI would do."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from httpx2 import Response
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

import fakes
from feedrank.decisions.log import DecisionLog
from feedrank.errors import InvalidRequestError
from feedrank.http import app as api_module
from feedrank.http.app import create_app
from feedrank.http.fast_path import App, may_wait
from feedrank.http.observer import Observer
from feedrank.http.routes import ROUTES
from feedrank.ranking.pipeline import Ranker
from feedrank.ranking.scorer import InlineScorer
from feedrank.telemetry.container import ContainerStats

REQUEST = {"user_id": 1, "item_ids": [10, 30, 20]}
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"
NO_OBJECT = "Input should be a valid dictionary or object to extract fields from"
ORIGIN = {"origin": "https://feed.example.com"}


async def _checked(request: Request) -> None:
    await asyncio.sleep(0)
    if request.headers.get("authorization") != "Bearer good":
        raise HTTPException(401, "Who are you?", {"www-authenticate": "Bearer"})


class _Guard:
    """A middleware that asks somebody else who the caller is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        if scope["type"] == "http" and (b"authorization", b"Bearer good") not in [
            tuple(header) for header in scope["headers"]
        ]:
            await JSONResponse({"detail": "no"}, 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _app(*, without_model: bool = False, **options: Any) -> tuple[App, Observer]:
    settings, stats = fakes.settings(), ContainerStats()
    slot = fakes.slot(None if without_model else fakes.model())
    ranker = Ranker(slot, InlineScorer(), DecisionLog([]))
    app = create_app(settings, slot, ranker, stats, **options)
    return app, Observer(app, stats, settings, clock=fakes.NOON.timestamp)


def _route_dependency(app: App) -> None:
    route: Any = next(route for route in app.routes if getattr(route, "path", "") == "/predict")
    other = FastAPI()
    other.add_api_route("/predict", route.endpoint, dependencies=[Depends(_checked)])
    route.dependant.dependencies += next(
        each for each in other.routes if getattr(each, "path", "") == "/predict"
    ).dependant.dependencies  # type: ignore[attr-defined]


def _wrapped_stack(app: App) -> None:
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: _Guard(build())  # type: ignore[method-assign]


def _route_before(app: App) -> None:
    async def predict(request: Request) -> None:
        await _checked(request)

    router = APIRouter()
    router.add_api_route("/predict", predict, methods=["POST"])
    app.router.routes.insert(0, router.routes[0])


def _wrapped_route(app: App) -> None:
    route: Any = app.router.routes[0]
    route.app = _Guard(route.app)


def _own_router(app: App) -> None:
    class Guarded(APIRouter):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await _Guard(super().__call__)(scope, receive, send)

    router = Guarded()
    router.routes[:] = app.router.routes
    app.router = router


def _wrapped_handle(app: App) -> None:
    route: Any = app.router.routes[0]
    route.handle = _Guard(route.handle)


def _wrapped_router_stack(app: App) -> None:
    app.router.middleware_stack = _Guard(app.router.middleware_stack)


def _wrapped_router_app(app: App) -> None:
    app.router.app = app.router.middleware_stack = _Guard(app.router.app)  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[App], object]] = {
    "a middleware": lambda app: app.add_middleware(_Guard),
    "a dependency of the route": _route_dependency,
    "a wrapped middleware stack": _wrapped_stack,
    "a route before ours": _route_before,
    "a wrapped route": _wrapped_route,
    "a router of another kind": _own_router,
    "a wrapped handle": _wrapped_handle,
    "a wrapped stack of the router": _wrapped_router_stack,
    "a wrapped app of the router": _wrapped_router_app,
}
every_guard = pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS.keys())


@pytest.mark.shortcut
def test_with_nothing_added_the_way_is_direct() -> None:
    app, observed = _app()
    assert not app.may_wait(dict(SCOPE))
    assert not may_wait(observed, dict(SCOPE))


@every_guard
def test_whatever_is_added_stands_before_predict(guard: Callable[[App], object]) -> None:
    app, observed = _app()
    guard(app)
    client = TestClient(observed)
    assert client.post("/predict", json=REQUEST).status_code == 401
    assert may_wait(observed, dict(SCOPE))


@every_guard
def test_whoever_may_pass_has_the_ranking(guard: Callable[[App], object]) -> None:
    app, observed = _app()
    guard(app)
    good = {"authorization": "Bearer good"}
    assert TestClient(observed).post("/predict", json=REQUEST, headers=good).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("GET", "/model")])
def test_a_dependency_of_the_app_guards_every_route_alike(method: str, path: str) -> None:
    _, observed = _app(dependencies=[Depends(_checked)])
    client = TestClient(observed)
    refused = client.request(method, path, json=REQUEST)
    passed = client.request(method, path, json=REQUEST, headers={"authorization": "Bearer good"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json()["detail"] == "Who are you?"
    assert passed.status_code == 200


def test_cors_headers_are_those_of_the_other_routes() -> None:
    app, observed = _app()
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN["origin"]], allow_methods=["POST"])
    client = TestClient(observed)
    responses = [
        client.post("/predict", json=REQUEST, headers=ORIGIN),
        client.post("/predict", content="{}", headers=ORIGIN),
        client.get("/model", headers=ORIGIN),
    ]
    assert [response.status_code for response in responses] == [200, 422, 200]
    assert {response.headers["access-control-allow-origin"] for response in responses} == {
        ORIGIN["origin"]
    }
    headers = {**ORIGIN, "access-control-request-method": "POST"}
    assert client.options("/predict", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda app: app.dependency_overrides.update({_checked: lambda: None}),
        lambda app: app.router.dependencies.append(Depends(_checked)),
        lambda app: app.add_exception_handler(InvalidRequestError, lambda *_: None),
        lambda app: setattr(app, "root_path", "/elsewhere"),
        lambda app: setattr(app, "debug", True),
        lambda app: app._telemetry.update(tracer_provider=TracerProvider()),
    ],
    ids=["an override", "a dependency of the router", "an exception handler", "a root path",
         "debugging", "telemetry"],
)  # fmt: skip
def test_where_it_can_not_be_told_the_plain_way_is_taken(change: Callable[[App], object]) -> None:
    app, _ = _app()
    change(app)
    assert app.may_wait(dict(SCOPE))


@pytest.mark.parametrize(
    ("owner", "name"), [(FastAPI, "__call__"), (Starlette, "__call__"),
                        (FastAPI, "build_middleware_stack")],
)  # fmt: skip
def test_an_agent_that_patches_fastapi_sees_predict_too(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    names: list[str] = []
    original: Any = getattr(owner, name)

    def patched(*arguments: Any) -> Any:
        names.append(name)
        return original(*arguments)

    monkeypatch.setattr(owner, name, patched)
    _, observed = _app()
    assert TestClient(observed).post("/predict", json=REQUEST).status_code == 200
    assert names


def test_a_wrapper_or_a_subclass_that_does_not_say_may_wait() -> None:
    class Guarded(Observer):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await _Guard(super().__call__)(scope, receive, send)

    class GuardedApp(App):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await _Guard(super().__call__)(scope, receive, send)

    app, observed = _app()
    stats = ContainerStats()
    assert may_wait(_Guard(observed), dict(SCOPE))
    assert may_wait(Guarded(app, stats, fakes.settings()), dict(SCOPE))
    assert may_wait(Observer(_Guard(app), stats, fakes.settings()), dict(SCOPE))
    assert may_wait(GuardedApp(), dict(SCOPE))
    assert may_wait(Observer(GuardedApp(), stats, fakes.settings()), dict(SCOPE))


# Both ways answer alike


@pytest.mark.parametrize(
    "content",
    [json.dumps(REQUEST), "{}", "SECRET", "x" * 70_000, json.dumps(REQUEST | {"user_id": 2})],
    ids=["ranked", "invalid", "no JSON", "too large", "unknown user"],
)
@pytest.mark.parametrize("without_model", [False, True], ids=["a model", "no model"])
def test_the_direct_way_responds_as_fastapis_own_does(content: str, *, without_model: bool) -> None:
    (_, direct), (plain, routed) = (_app(without_model=without_model) for _ in range(2))
    plain.dependency_overrides[_checked] = _checked
    assert may_wait(routed, dict(SCOPE))
    responses = [_comparable(TestClient(app).post("/predict", content=content))
               for app in (direct, routed)]  # fmt: skip
    assert responses[0] == responses[1]


def _comparable(response: Response) -> tuple[int, dict[str, str], dict[str, Any]]:
    headers = dict(response.headers)
    del headers["x-request-id"], headers["content-length"]
    body = response.json()
    return response.status_code, headers, body | dict.fromkeys(("latency_ms", "request_id"))


# Through Lambda's adapter


@contextmanager
def _extended(
    bundle: Path, extend: Callable[[App], object], **options: Any
) -> Iterator[ModuleType]:
    """A container whose owner has added something to the app."""

    def create(*arguments: Any, **extensions: Any) -> App:
        app = create_app(*arguments, **extensions | options)
        extend(app)
        return app

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_module, "create_app", create)
        with fakes.container(MODEL_URI=str(bundle)) as module:
            yield module


def _ask(module: ModuleType, method: str, path: str, **headers: str) -> dict[str, Any]:
    event = fakes.http_event(method, path, REQUEST, **headers)
    response: dict[str, Any] = module.lambda_handler(event, fakes.LambdaContext())
    return response


@pytest.mark.parametrize(
    ("guard", "options"),
    [*((guard, {}) for guard in GUARDS.values()),
     (lambda _: None, {"dependencies": [Depends(_checked)]})],
    ids=[*GUARDS, "a dependency of the app"],
)  # fmt: skip
def test_on_lambda_what_is_added_stands_before_predict(
    demo_bundle: Path, guard: Callable[[App], object], options: dict[str, Any]
) -> None:
    with _extended(demo_bundle, guard, **options) as module:
        assert _ask(module, "POST", "/predict")["statusCode"] == 401
        assert _ask(module, "POST", "/predict", authorization="Bearer good")["statusCode"] == 200


def test_on_lambda_cors_headers_are_those_of_the_other_routes(demo_bundle: Path) -> None:
    def extend(app: App) -> None:
        app.add_middleware(CORSMiddleware, allow_origins=["*"])

    with _extended(demo_bundle, extend) as module:
        responses = [
            _ask(module, "POST", "/predict", **ORIGIN),
            _ask(module, "GET", "/model", **ORIGIN),
        ]
    assert [response["headers"]["access-control-allow-origin"] for response in responses] == [
        "*",
        "*",
    ]


# Routes that somebody adds


class Health(BaseModel):
    """Called like one of ours."""

    pulse: int


class Wish(BaseModel):
    item_id: int
    kind: str = "like"


def _with_routes() -> tuple[App, TestClient]:
    app, observed = _app()

    @app.get("/twice/{number}")
    async def twice(number: int, limit: int = 3) -> Health:
        return Health(pulse=2 * number)

    @app.post("/wishes")
    async def wish(wish: Wish) -> Wish:
        raise HTTPException(409, {"SECRET": wish.kind})

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPException(204)

    return app, TestClient(observed, raise_server_exceptions=False)


def test_an_added_route_is_served_and_described() -> None:
    _, client = _with_routes()
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert client.get("/twice/4").json() == {"pulse": 8}
    assert client.get("/docs").status_code == 200
    twice = document["paths"]["/twice/{number}"]["get"]["responses"]
    reference = twice["200"]["content"]["application/json"]["schema"]["$ref"]
    assert schemas[reference.rpartition("/")[2]]["properties"].keys() == {"pulse"}
    assert "status" in schemas["Health"]["properties"]
    assert "Wish" in schemas
    assert not {"HTTPValidationError", "ValidationError"} & schemas.keys()
    assert "application/problem+json" in twice["422"]["content"]


def test_a_route_that_is_added_late_is_described_too() -> None:
    app, client = _with_routes()
    before = client.get("/openapi.json").json()["paths"]
    app.add_api_route("/late", lambda: None)
    assert client.get("/openapi.json").json()["paths"].keys() - before.keys() == {"/late"}


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("GET", "/twice/SECRET", None, f"path.number: {NO_INTEGER}"),
        ("GET", "/twice/1?limit=SECRET", None, f"query.limit: {NO_INTEGER}"),
        ("POST", "/wishes", {"SECRET": 1}, "body.item_id: Field required"),
        ("POST", "/wishes", {"item_id": 1, "kind": {"SECRET": 1}},
         "body.kind: Input should be a valid string"),
        ("POST", "/wishes", "SECRET", f"body: {NO_OBJECT}"),
    ],
)  # fmt: skip
def test_its_422_is_a_problem_that_repeats_nothing(
    method: str, path: str, body: object, detail: str
) -> None:
    _, client = _with_routes()
    response = client.request(method, path, json=body)
    assert (response.status_code, response.json()["detail"]) == (422, detail)
    assert response.headers["content-type"] == "application/problem+json"
    assert "SECRET" not in response.text


def test_a_detail_that_is_no_text_stays_out_of_the_title() -> None:
    _, client = _with_routes()
    response = client.post("/wishes", json={"item_id": 1})
    body = response.json()
    assert (response.status_code, body["title"], body["detail"]) == (409, "Conflict", "Conflict")


def test_an_answer_that_may_have_no_body_has_none() -> None:
    _, client = _with_routes()
    response = client.get("/gone")
    assert (response.status_code, response.content) == (204, b"")


# Where the app begins


every_route = pytest.mark.parametrize(
    ("method", "path"), [(route.method, route.path) for route in ROUTES]
)


@every_route
@pytest.mark.parametrize("base_path", ["", "/prod"])
def test_a_mounted_app_serves_every_route(method: str, path: str, base_path: str) -> None:
    outer = Starlette()
    outer.mount("/x", fakes.app(fakes.model(), BASE_PATH=base_path))
    client = TestClient(outer)
    assert client.request(method, "/x" + path, json=REQUEST).status_code == 200
    assert client.request(method, "/x" + base_path + path, json=REQUEST).status_code == 200
    assert client.request(method, path, json=REQUEST).status_code == 404


@every_route
@pytest.mark.parametrize("base_path", ["", "/prod", "/x"])
def test_the_servers_root_path_is_kept(method: str, path: str, base_path: str) -> None:
    app = fakes.app(fakes.model(), BASE_PATH=base_path)
    client = TestClient(app, root_path="/x")
    assert client.request(method, "/x" + path, json=REQUEST).status_code == 200


@pytest.mark.parametrize(
    ("root_path", "base_path", "server"),
    [("", "", "/"), ("/x", "", "/x"), ("", "/prod", "/prod"), ("/x", "/x", "/x")],
)
def test_the_document_and_the_root_say_where_the_app_begins(
    root_path: str, base_path: str, server: str
) -> None:
    client = TestClient(fakes.app(fakes.model(), BASE_PATH=base_path), root_path=root_path)
    assert client.get(root_path + "/openapi.json").json()["servers"] == [{"url": server}]
    assert client.get(root_path + "/").json()["docs"] == f"{server.rstrip('/')}/docs"
