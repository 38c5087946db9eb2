"""What stands around the app: a request id, a clock, one log line, no exception.

Plain ASGI, so that Lambda and the container images have the same.
"""

import os
import re
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedrank.domain import Call, Ranking
from feedrank.http.fast_path import needs_no_loop
from feedrank.http.invocation import is_id, request_id_of, time_left_ms
from feedrank.settings import Settings
from feedrank.telemetry.container import ContainerStats
from feedrank.telemetry.logging import logger, request_ids
from feedrank.telemetry.metrics import log_request, request_metrics

ANSWER_MARGIN_MS = 50  # of Lambda's own time limit, kept back to answer in
TOO_LATE = "REQUEST_TIMEOUT_MS: Lambda's own timeout ends a request before"
PREDICT = "/predict"
LONGEST_ID = 128
LAMBDA_TRACE = "_X_AMZN_TRACE_ID"
TRACE_ROOT = re.compile(r"(?:^|;)Root=(1-[0-9a-f]{8}-[0-9a-f]{24})(?:;|$)")


class Observer:
    def __init__(self, app: ASGIApp, stats: ContainerStats, settings: Settings) -> None:
        self._app = app
        self._stats = stats
        self._timeout_ms = settings.request_timeout_ms
        self._base_path = settings.base_path
        self._cold_start = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = self._begin(scope)
        identity = {
            "request_id": call.request_id,
            "correlation_id": call.correlation_id,
            "trace_id": call.trace_id,
            "cold_start": self._cold_start,
        }
        self._cold_start = False
        request_ids.set(identity)
        scope["root_path"] = self._root_path(scope)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["call"] = call
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", call.request_id.encode()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # noqa: BLE001 answered already; Starlette raises it again for the log
            logger.exception("request failed")
        self._end(scope, call, status, identity)

    def needs_no_loop(self, scope: Scope) -> bool:
        scope["root_path"] = self._root_path(scope)
        return needs_no_loop(self._app, scope)

    def _root_path(self, scope: Scope) -> str:
        """Where the app begins: at what the server says, and the base path behind that."""
        root: str = scope.get("root_path", "")
        if root.endswith(self._base_path):
            return root
        whole = root + self._base_path
        return whole if not root or scope["path"].startswith(whole + "/") else root

    def _begin(self, scope: Scope) -> Call:
        started_s = perf_counter()
        context = scope.get("aws.context")
        budget_ms: float = self._timeout_ms
        left_ms, limit_s = time_left_ms(context), 0.0
        if left_ms is not None:
            left_ms -= ANSWER_MARGIN_MS
            if self._cold_start and left_ms < self._timeout_ms:
                logger.warning("doubtful setting", reason=TOO_LATE)
            budget_ms, limit_s = min(budget_ms, left_ms), started_s + left_ms / 1_000
        return Call(
            request_id_of(context),
            started_s,
            started_s + budget_ms / 1_000,
            is_alone="aws.event" in scope,
            correlation_id=correlation_id(scope),
            trace_id=trace_id(scope),
            limit_s=limit_s,
        )

    def _end(self, scope: Scope, call: Call, status: int, identity: Mapping[str, Any]) -> None:
        latency_ms = round(1_000 * (perf_counter() - call.started_s), 3)
        ranking: Ranking | None = scope["state"].get("ranking")
        error: Exception | None = scope["state"].get("error")
        route = getattr(scope.get("route"), "path", "none")
        fields = {**identity, "route": route, "status": status, "latency_ms": latency_ms}
        if ranking:
            fields["timestamp"] = ranking.timestamp
            fields["items"] = len(ranking.scores)
            fields["unknown_users"] = ranking.unknown_users
            fields["unknown_items"] = ranking.unknown_items
            fields["degraded"] = ranking.degraded
            fields["model_version"] = ranking.model_version
        if error:
            fields["error"] = type(error).__name__
        measured: dict[str, float] = {}
        if route == PREDICT:
            self._stats.count(latency_ms, status, ranking)
            measured = request_metrics(latency_ms, status, ranking)
        log_request(fields, measured)


def correlation_id(scope: Scope) -> str | None:
    """The gateway's own id of the request; a load balancer has only its trace id."""
    if event := scope.get("aws.event"):
        found = event["requestContext"].get("requestId")
        if is_id(found):
            return found[:LONGEST_ID]
        if sent := _sent_trace_id(scope):
            return f"Root={sent}"
    return None


def trace_id(scope: Scope) -> str | None:
    """X-Ray's: on Lambda the one that Lambda itself is traced by, elsewhere the caller's."""
    if on_lambda := os.environ.get(LAMBDA_TRACE):
        found = TRACE_ROOT.search(on_lambda)
        return found[1] if found else None
    return _sent_trace_id(scope)


def _sent_trace_id(scope: Scope) -> str | None:
    """A caller can write anything there, so nothing but what looks like one is taken."""
    for name, value in scope.get("headers", ()):
        if name == b"x-amzn-trace-id" and (found := TRACE_ROOT.search(value.decode("latin-1"))):
            return found[1]
    return None
