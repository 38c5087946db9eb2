"""The outermost layer: gives each request an id and a deadline, logs one line, raises nothing.

Plain ASGI, so that Lambda and the container images share it.
"""

import re
import time
from collections.abc import Callable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedrank.domain import Call
from feedrank.errors import reason_of
from feedrank.http.invocation import is_id, request_id_of, time_left_ms
from feedrank.http.request_context import KEY, RequestContext, request_context
from feedrank.http.web import ServiceRoute
from feedrank.settings import Settings, lambda_trace
from feedrank.telemetry.container import ContainerStats
from feedrank.telemetry.logging import logger, request_ids
from feedrank.telemetry.metrics import SERVER_ERROR, log_request, request_metrics

RESPONSE_MARGIN_MS = 50  # of Lambda's own time limit, kept back for the response
TOO_LATE = "REQUEST_TIMEOUT_MS: Lambda's own timeout ends a request before"
RANKING = {"/predict", "/invocations"}  # the latter for SageMaker
EXTENSION = "extension:"  # before the path of a team's route, in the log
LONGEST_ID = 128
TRACE_ROOT = re.compile(r"(?:^|;)Root=(1-[0-9a-f]{8}-[0-9a-f]{24})(?:;|$)")


class Observer:
    def __init__(
        self,
        app: ASGIApp,
        stats: ContainerStats,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix seconds, once a request."""
        self._clock = clock
        self.app = app
        self._stats = stats
        self._timeout_ms = settings.request_timeout_ms
        self._base_path = settings.base_path
        self._cold_start = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.set_root_path(scope)
        if KEY not in scope:  # else it begins anew, on an event loop
            scope[KEY] = self._begin(scope)
        context = request_context(scope)
        request_ids.set(context.log_fields)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]  # of a copy: a middleware may keep its message
                own = (b"x-request-id", context.call.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:  # noqa: BLE001 it has its response; Starlette raises it again for the log
            logger.exception("request failed")
        self._end(scope, context, status)

    def set_root_path(self, scope: Scope) -> None:
        """The server's own root path, followed by the base path."""
        root: str = scope.get("root_path", "")
        if not root.endswith(self._base_path):
            whole = root + self._base_path
            if not root or scope["path"].startswith(whole + "/"):
                root = whole
        scope["root_path"] = root

    def _begin(self, scope: Scope) -> RequestContext:
        started_s = perf_counter()
        context = scope.get("aws.context")
        budget_ms: float = self._timeout_ms
        left_ms, limit_s = time_left_ms(context), 0.0
        if left_ms is not None:
            left_ms -= RESPONSE_MARGIN_MS
            if self._cold_start and left_ms < self._timeout_ms:
                logger.warning("doubtful setting", reason=TOO_LATE)
            budget_ms, limit_s = min(budget_ms, left_ms), started_s + left_ms / 1_000
        call = Call(
            request_id_of(context),
            self._clock(),
            started_s,
            started_s + budget_ms / 1_000,
            is_alone="aws.event" in scope,
            correlation_id=correlation_id(scope),
            trace_id=trace_id(scope),
            limit_s=limit_s,
        )
        log_fields = {
            "request_id": call.request_id,
            "correlation_id": call.correlation_id,
            "trace_id": call.trace_id,
            "cold_start": self._cold_start,
        }
        self._cold_start = False
        return RequestContext(call, log_fields)

    def _end(self, scope: Scope, context: RequestContext, status: int) -> None:
        latency_ms = round(1_000 * (perf_counter() - context.call.started_s), 3)
        ranking, error = context.ranking, context.error
        route = context.route or route_of(scope)
        fields = {
            **context.log_fields,
            "route": route,
            "status": status,
            "latency_ms": latency_ms,
        }
        if ranking:
            fields["timestamp"] = ranking.timestamp
            fields["items"] = len(ranking.scores)
            fields["unknown_users"] = ranking.unknown_users
            fields["unknown_items"] = ranking.unknown_items
            fields["degraded"] = ranking.degraded
            fields["model_version"] = ranking.model_version
        if error:
            fields["error"] = type(error).__name__
            if status >= SERVER_ERROR:
                fields["reason"] = reason_of(error)
        metrics: dict[str, float] = {}
        if route in RANKING:
            self._stats.count(latency_ms, status, ranking)
            metrics = request_metrics(latency_ms, status, ranking)
        log_request(fields, metrics)


def route_of(scope: Scope) -> str:
    """The path of one of the service's routes. A team's has `extension:` before it, since FastAPI
    and a mounted app tell only the end of theirs, which may be `/predict`."""
    route = scope.get("route")
    if type(route) is ServiceRoute:
        return route.path
    return "none" if route is None else EXTENSION + getattr(route, "path", type(route).__name__)


class RouteNote:
    """The innermost middleware: notes the route in the request's context, since a middleware before
    it may go on with a copy of the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                request_context(scope).route = route_of(scope)


def correlation_id(scope: Scope) -> str | None:
    """The gateway's own request id; a load balancer has only its trace id."""
    if event := scope.get("aws.event"):
        request_id = event["requestContext"].get("requestId")
        if is_id(request_id):
            return request_id[:LONGEST_ID]
        if root := _header_trace_id(scope):
            return f"Root={root}"
    return None


def trace_id(scope: Scope) -> str | None:
    """X-Ray's: on Lambda that of the invocation, elsewhere the caller's."""
    if trace := lambda_trace():
        match = TRACE_ROOT.search(trace)
        return match[1] if match else None
    return _header_trace_id(scope)


def _header_trace_id(scope: Scope) -> str | None:
    """Only a well-formed one: a caller can send anything there."""
    for name, value in scope.get("headers", ()):
        if name == b"x-amzn-trace-id" and (match := TRACE_ROOT.search(value.decode("latin-1"))):
            return match[1]
    return None
