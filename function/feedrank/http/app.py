"""Routes and one error translator. No business rule."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

from feedrank import __version__
from feedrank.errors import (
    FeedrankError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestTooLargeError,
)
from feedrank.http.fast_path import JSON, App
from feedrank.http.openapi import ROUTE_DOCS, openapi, with_context
from feedrank.http.payload import parse, response_body, to_query
from feedrank.http.problems import problem
from feedrank.http.request_context import request_context
from feedrank.http.web import Depends, Request, RequestValidationError, Response
from feedrank.model.load import Model
from feedrank.model.runs import watch
from feedrank.model.slot import ModelSlot
from feedrank.ranking.pipeline import Ranker
from feedrank.settings import Settings
from feedrank.telemetry.container import ContainerStats

TITLE = "feedrank"
TRANSLATED = (FeedrankError, HTTPException, RequestValidationError, Exception)
DOCS_HEADERS = {  # beside the page's own policy, which can't say these
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
DOCS_PAGE = Path(__file__).with_name("docs.html")


class Endpoints:
    def __init__(
        self, settings: Settings, slot: ModelSlot, ranker: Ranker, stats: ContainerStats
    ) -> None:
        self._settings = settings
        self._slot = slot
        self._ranker = ranker
        self._stats = stats

    async def predict(self, request: Request) -> Response:
        return Response(await self.ranked(request.scope, request.receive), media_type=JSON)

    async def ranked(self, scope: Scope, receive: Receive) -> bytes:
        context = request_context(scope)
        body = await read_body(receive, self._settings.max_body_bytes)
        request = parse(body, self._context_keys)
        context.ranking = ranking = await self._ranker.rank(to_query(request), context.call)
        return response_body(request, ranking)

    async def health(self) -> Response:
        health = self._health()
        status = 503 if health["status"] == "unhealthy" else 200
        return Response(orjson.dumps(health, option=orjson.OPT_UTC_Z), status, media_type=JSON)

    async def live(self) -> Response:
        """A missing model is no reason to start anew: that would find none either."""
        return _probed("hung" if watch.hangs else "ok")

    async def ready(self) -> Response:
        if watch.hangs:
            return _probed("hung")
        return _probed("ok" if self._serving() else "unavailable")

    async def metrics(self) -> Response:
        return Response(orjson.dumps(self._stats.summary()), media_type=JSON)

    async def model(self) -> Response:
        model = self._slot.model()
        card = model.manifest.public() | {"context": model.context.described()}
        card["engine"] = self._settings.model_engine
        return Response(orjson.dumps(card), media_type=JSON)

    async def about(self, request: Request) -> Response:
        docs = f"{request.scope.get('root_path', '')}/docs"
        about = {"name": TITLE, "version": __version__, "docs": docs}
        return Response(orjson.dumps(about), media_type=JSON)

    async def openapi(self, request: Request) -> Response:
        root = request.scope.get("root_path", "")
        document = {**request.app.openapi(), "servers": [{"url": root or "/"}]}
        with suppress(ModelUnavailableError):
            keys, check = self._slot.model().context, self._settings.context_check
            document = with_context(document, keys.schema(), closed=check == "strict")
        return Response(orjson.dumps(document), media_type=JSON)

    async def docs(self) -> Response:
        return Response(DOCS_PAGE.read_bytes(), headers=DOCS_HEADERS, media_type="text/html")

    def _context_keys(self) -> Iterable[str]:
        try:
            return self._slot.model().context.known
        except ModelUnavailableError:
            return ()

    def _serving(self) -> Model | None:
        with suppress(ModelUnavailableError):
            return self._slot.model()
        return None

    def _health(self) -> dict[str, Any]:
        model = self._serving()
        return {
            "status": _status(model),
            "model_version": model and model.manifest.model_version,
            "model_digest": model and model.manifest.short_digest,
            "trained_at": model and model.manifest.trained_at,
            "snapshot_as_of": model and model.manifest.snapshot_as_of,
            "published_at": model and model.manifest.published_at,
            "model_loaded_at": model and model.loaded_at,
            "uptime_seconds": round(self._stats.uptime_s, 3),
            "last_prediction_at": self._stats.last_prediction_at,
        }


def _status(model: Model | None) -> str:
    if model is None or watch.hangs:
        return "unhealthy"
    return "degraded" if model.degraded or watch.late else "healthy"


def _probed(status: str) -> Response:
    body = orjson.dumps({"status": status})
    return Response(body, 200 if status == "ok" else 503, media_type=JSON)


def create_app(
    settings: Settings,
    slot: ModelSlot,
    ranker: Ranker,
    stats: ContainerStats,
    dependencies: Sequence[Depends] = (),
) -> App:
    app = App(
        title=TITLE,
        version=__version__,
        openapi_url=None,  # a route of our own, as it is for the docs
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host and path
        dependencies=dependencies,
        exception_handlers=dict.fromkeys(TRANSLATED, problem),
    )
    endpoints = Endpoints(settings, slot, ranker, stats)
    for method, path, endpoint in (
        ("POST", "/predict", endpoints.predict),
        ("GET", "/health", endpoints.health),
        ("GET", "/live", endpoints.live),
        ("GET", "/ready", endpoints.ready),
        ("GET", "/metrics", endpoints.metrics),
        ("GET", "/model", endpoints.model),
        ("GET", "/", endpoints.about),
    ):
        names = {key: ROUTE_DOCS[path][key] for key in ("operation_id", "summary")}
        app.add_api_route(path, endpoint, methods=[method], response_model=None, **names)
    app.add_api_route("/docs", endpoints.docs, include_in_schema=False)
    app.add_route("/openapi.json", endpoints.openapi, include_in_schema=False)
    described = partial(openapi, app, settings.api_auth)
    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way
    app.serve_directly("/predict", "POST", endpoints.ranked, lambda: slot.waits)
    return app


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """Raises RequestTooLargeError as soon as the limit is passed, however much is still to come,
    and InvalidRequestError where the caller hangs up before the end."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequestError("the request body was cut off")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit_bytes:
            raise RequestTooLargeError(f"the request body is over {limit_bytes} bytes")
    return body
