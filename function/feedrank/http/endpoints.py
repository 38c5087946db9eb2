"""What each route does. No business rule: that is the ranker's."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from starlette.types import Receive, Scope

from feedrank import __version__
from feedrank.errors import InvalidRequestError, ModelUnavailableError, RequestTooLargeError
from feedrank.http.fast_path import JSON
from feedrank.http.payload import parse, response_body, to_query
from feedrank.http.request_context import request_context
from feedrank.http.web import Request, Response
from feedrank.model.inference import watchdog
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot
from feedrank.ranking.pipeline import Ranker
from feedrank.settings import Settings
from feedrank.telemetry.container import ContainerStats

TITLE = "feedrank"
DOCS_HEADERS = {  # beside the page's own policy, which can't express these
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
        """The body of `predict`, which the fast path sends by itself."""
        context = request_context(scope)
        body = await read_body(receive, self._settings.max_body_bytes)
        model = self._slot.ready  # else a request may wait for it, and is then compared with it
        ids = model.spec.ids if model else None
        request = parse(body, self._context_keys, ids, self._settings.max_items)
        query = to_query(request, context.call.time_s)
        context.ranking = ranking = await self._ranker.rank(query, context.call)
        return response_body(ranking)

    async def health(self) -> Response:
        health = self._health()
        status = 503 if health["status"] == "unhealthy" else 200
        return Response(orjson.dumps(health, option=orjson.OPT_UTC_Z), status, media_type=JSON)

    async def live(self) -> Response:
        """Fine without a model: a new process would find none either."""
        return _probe("hung" if watchdog.hangs else "ok")

    async def ready(self) -> Response:
        if watchdog.hangs:
            return _probe("hung")
        return _probe("ok" if self._serving() else "unavailable")

    async def metrics(self, request: Request) -> Response:
        """JSON, unless the request prefers a format of Prometheus's."""
        from feedrank.http.negotiation import preferred  # which a ranking has no use for
        from feedrank.telemetry.exposition import FORMATS, exposition

        accept = ",".join(request.headers.getlist("accept"))
        media_type = preferred(accept, (JSON, *FORMATS))
        if media_type == JSON:
            body = orjson.dumps(self._stats.summary())
        else:
            body = exposition(self._stats, self._model_labels(), media_type)
        return Response(body, headers={"Vary": "Accept"}, media_type=media_type)

    async def model(self) -> Response:
        model = self._slot.model()
        card = model.manifest.public() | {
            "context": model.context.described(),
            "features": model.candidates.described(),
        }
        card["engine"] = self._settings.model_engine
        return Response(orjson.dumps(card), media_type=JSON)

    async def about(self, request: Request) -> Response:
        docs = f"{request.scope.get('root_path', '')}/docs"
        about = {"name": TITLE, "version": __version__, "docs": docs}
        return Response(orjson.dumps(about), media_type=JSON)

    async def openapi(self, request: Request) -> Response:
        from feedrank.http.model_document import of_model

        root = request.scope.get("root_path", "")
        document = {**request.app.openapi(), "servers": [{"url": root or "/"}]}
        with suppress(ModelUnavailableError):
            settings = self._settings
            closed = settings.context_check == "strict"
            document = of_model(document, self._slot.model(), settings.max_items, closed=closed)
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

    def _model_labels(self) -> dict[str, str]:
        if model := self._serving():
            manifest = model.manifest
            return {"version": manifest.model_version, "digest": manifest.short_digest}
        return {}

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


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """Raises RequestTooLargeError as soon as the limit is passed, however much is still to come,
    and InvalidRequestError where the client disconnects before the end."""
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


def _status(model: Model | None) -> str:
    if model is None or watchdog.hangs:
        return "unhealthy"
    return "degraded" if model.degraded or watchdog.late else "healthy"


def _probe(status: str) -> Response:
    body = orjson.dumps({"status": status})
    return Response(body, 200 if status == "ok" else 503, media_type=JSON)
