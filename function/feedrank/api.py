"""Routes and one error translator. No business rule."""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from feedrank import __version__
from feedrank.domain import Query, Ranking
from feedrank.errors import (
    FeedrankError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestTooLargeError,
)
from feedrank.model import ModelSlot
from feedrank.openapi import ROUTE_DOCS, openapi
from feedrank.ranker import Ranker
from feedrank.schemas import PredictRequest, time_of
from feedrank.settings import Settings
from feedrank.telemetry import ContainerStats
from feedrank.web import FastAPI, Request, Response

TITLE = "feedrank"
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
PROBLEMS_SHOWN = 5
LONGEST_DETAIL_BYTES = 400  # an error body stays under 1 KiB, even if each one is escaped
Answer = Callable[[Scope, Receive], Awaitable[bytes]]
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
        state = scope["state"]
        asked = parse(await read_body(receive, self._settings.max_body_bytes))
        state["ranking"] = ranking = await self._ranker.rank(to_query(asked), state["call"])
        return answer_body(asked, ranking)

    async def health(self) -> Response:
        health = self._health()
        status = 503 if health["status"] == "unhealthy" else 200
        return Response(orjson.dumps(health, option=orjson.OPT_UTC_Z), status, media_type=JSON)

    async def metrics(self) -> Response:
        return Response(orjson.dumps(self._stats.summary()), media_type=JSON)

    async def model(self) -> Response:
        card = self._slot.model().manifest.public()
        card["engine"] = self._settings.model_engine
        return Response(orjson.dumps(card), media_type=JSON)

    async def about(self) -> Response:
        docs = f"{self._settings.base_path}/docs"
        about = {"name": TITLE, "version": __version__, "docs": docs}
        return Response(orjson.dumps(about), media_type=JSON)

    async def docs(self) -> Response:
        return Response(DOCS_PAGE.read_bytes(), headers=DOCS_HEADERS, media_type="text/html")

    def _health(self) -> dict[str, Any]:
        try:
            model = self._slot.model()
        except ModelUnavailableError:
            model = None
        status = "unhealthy" if model is None else "degraded" if model.degraded else "healthy"
        return {
            "status": status,
            "model_version": model and model.manifest.model_version,
            "model_loaded_at": model and model.loaded_at,
            "uptime_seconds": round(self._stats.uptime_s, 3),
            "last_prediction_at": self._stats.last_prediction_at,
        }


class App(FastAPI):
    """FastAPI, but for the one hot route: its layers cost more than the model takes over five
    items, so `POST /predict` goes straight to its answer and to the same error translator."""

    def serve_directly(self, path: str, answer: Answer, base_path: str) -> None:
        self._answer = answer
        self._paths = {path, base_path + path}
        self._route = next(route for route in self.routes if getattr(route, "path", "") == path)

    def serves_directly(self, scope: Scope) -> bool:
        return (
            scope["type"] == "http" and scope["path"] in self._paths and scope["method"] == "POST"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.serves_directly(scope):
            await super().__call__(scope, receive, send)
            return
        scope["route"] = self._route
        try:
            body = await self._answer(scope, receive)
        except Exception as error:
            await (await problem(Request(scope), error))(scope, receive, send)
            if not isinstance(error, FeedrankError):
                raise  # as Starlette does, for the log
        else:
            length = (b"content-length", b"%d" % len(body))
            headers = [length, (b"content-type", JSON.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def create_app(settings: Settings, slot: ModelSlot, ranker: Ranker, stats: ContainerStats) -> App:
    app = App(
        title=TITLE,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host and path
        exception_handlers={FeedrankError: problem, HTTPException: problem, Exception: problem},
    )
    endpoints = Endpoints(settings, slot, ranker, stats)
    for method, path, endpoint in (
        ("POST", "/predict", endpoints.predict),
        ("GET", "/health", endpoints.health),
        ("GET", "/metrics", endpoints.metrics),
        ("GET", "/model", endpoints.model),
        ("GET", "/", endpoints.about),
    ):
        app.add_api_route(path, endpoint, methods=[method], response_model=None, **ROUTE_DOCS[path])
    app.add_api_route("/docs", endpoints.docs, include_in_schema=False)
    app.serve_directly("/predict", endpoints.ranked, settings.base_path)
    app.openapi = partial(openapi, app)  # type: ignore[method-assign]  # FastAPI's documented way
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


def parse(body: bytes) -> PredictRequest:
    """Raises InvalidRequestError that names the fields, and repeats nothing of what they held."""
    try:
        return PredictRequest.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        shown = "; ".join(f"{_place(p['loc'])}: {p['msg']}" for p in problems[:PROBLEMS_SHOWN])
        more = f"; and {len(problems) - PROBLEMS_SHOWN} more" * (len(problems) > PROBLEMS_SHOWN)
        raise InvalidRequestError(shown + more) from None


def to_query(asked: PredictRequest) -> Query:
    """Raises InvalidRequestError where the context's timestamp is none."""
    try:
        time_s = time_of(asked.context)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError("context.timestamp must be an ISO 8601 time") from error
    item_ids = np.array(asked.item_ids, dtype=np.int64)
    return Query(asked.user_id, item_ids, asked.context, time_s)


def answer_body(asked: PredictRequest, ranking: Ranking) -> bytes:
    """`PredictResponse` as JSON, of plain data: a hundred validated models would cost more than the
    model run. A test holds it against the schema."""
    item_ids, scores = asked.item_ids, ranking.scores
    answer = {
        "user_id": asked.user_id,
        "predictions": [
            {"item_id": item_ids[at], "score": scores[at], "rank": rank}
            for rank, at in enumerate(ranking.order, 1)
        ],
        "model_version": ranking.model_version,
        "latency_ms": ranking.latency_ms,
        "timestamp": ranking.timestamp,
        "request_id": ranking.request_id,
        "degraded": ranking.degraded,
    }
    return orjson.dumps(answer)


async def problem(request: Request, error: Exception) -> Response:
    """Every error's way out, as RFC 9457 has it. An unforeseen error's text stays in the log."""
    headers: dict[str, str] = {}
    match error:
        case HTTPException():
            status, title, detail = error.status_code, error.detail, error.detail
            headers |= error.headers or {}
        case InvalidRequestError():
            status, title, detail = error.status, error.title, _cut(str(error))
        case FeedrankError():
            status, title, detail = error.status, error.title, error.title
        case _:
            status, title, detail = 500, FeedrankError.title, FeedrankError.title
    if isinstance(error, ModelUnavailableError):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    request.state.error = error
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request.state.call.request_id,
    }
    return Response(orjson.dumps(body), status, headers, PROBLEM_JSON)


def _cut(detail: str) -> str:
    return detail.encode()[:LONGEST_DETAIL_BYTES].decode(errors="ignore")


def _place(location: tuple[int | str, ...]) -> str:
    """`item_ids.3`. A name that only the caller knows would echo the request, so it is left out."""
    known = [
        part for part in location if isinstance(part, int) or part in PredictRequest.model_fields
    ]
    return ".".join(map(str, known)) or "body"
