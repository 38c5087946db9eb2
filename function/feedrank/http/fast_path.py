"""Two questions about a request, decided here and nowhere else: does FastAPI see it, and does it
wait for anything?

`POST /predict` goes directly to its endpoint while that is all that FastAPI would do, since
FastAPI's layers take longer than the model takes over five items. On Lambda, a direct request that
waits for nothing runs without an event loop, since one turn of a loop takes half as long again.

Both fail closed. With anything that somebody added (a middleware, a dependency, a wrapper, a
monitoring agent) the request goes FastAPI's own way, on a loop. What waits although nothing here
could tell gets a loop as well, and so does every request after it.
"""

from collections.abc import Awaitable, Callable, Coroutine
from types import FunctionType
from typing import Any, TypeVar

from mangum.protocols import HTTPCycle
from mangum.types import ASGI, Response
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedrank import shortcuts
from feedrank.errors import RequestError
from feedrank.http.observer import Observer
from feedrank.http.problems import problem
from feedrank.http.web import APIRoute, APIRouter, FastAPI, Request
from feedrank.telemetry.logging import logger

JSON = "application/json"
DIRECT = "feedrank.direct"  # in a scope: the first decision, so that it is made once a request
NO_LOOP = "feedrank.no_loop"  # in a scope: the request runs without an event loop
MAX_WAITS = 100  # of the cleanup of a request that is given up
Endpoint = Callable[[Scope, Receive], Awaitable[bytes]]
Result = TypeVar("Result")
# What monitoring agents replace by their own, and the module that each is from.
PATCHED: tuple[tuple[type, str, str], ...] = (
    (FastAPI, "__call__", "fastapi.applications"),
    (FastAPI, "build_middleware_stack", "fastapi.applications"),
    (Starlette, "__call__", "starlette.applications"),
)


class LoopNeededError(BaseException):
    """A request waits that was expected not to. No `Exception`, so that none is made a response.

    With `has_ended` it ended all the same: something caught this error where it was to wait.
    """

    has_ended = False


class App(FastAPI):
    """FastAPI, with one route that may be served directly."""

    def serve_directly(
        self, path: str, method: str, endpoint: Endpoint, waits: Callable[[], bool]
    ) -> None:
        """`endpoint` returns the JSON that the route of this path responds with. `waits` tells
        whether it may wait."""
        self._endpoint, self._path, self._method, self._waits = endpoint, path, method, waits
        self._route = next(
            route
            for route in self.routes
            if isinstance(route, APIRoute) and (route.path, route.methods) == (path, {method})
        )
        self.routes.remove(self._route)
        self.routes.insert(0, self._route)  # so that a route which is put before it is noticed
        self._route_app = self._route.app
        self._own_handlers = dict(self.exception_handlers)
        self._bare_stack: ASGIApp | None = None

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        is_bare = (
            not self.user_middleware
            and not self.debug
            and self.exception_handlers == self._own_handlers
            and self.max_body_size is None
            and not self._native_telemetry.enabled()
            and all(_is_of(module, getattr(owner, name)) for owner, name, module in PATCHED)
        )
        self._bare_stack = stack if is_bare else None
        return stack

    def may_wait(self, scope: Scope) -> bool:
        scope[DIRECT] = self._is_direct(scope)
        return not scope[DIRECT] or self._waits()

    def always_wait(self) -> None:
        self._waits = lambda: True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (scope[DIRECT] if DIRECT in scope else self._is_direct(scope)):
            await super().__call__(scope, receive, send)
            return
        scope["route"] = self._route
        try:
            body = await self._endpoint(scope, receive)
        except Exception as error:
            if NO_LOOP in scope and _lacks_a_loop(error):
                raise LoopNeededError from error
            await (await problem(Request(scope), error))(scope, receive, send)
            if not isinstance(error, RequestError):
                raise  # as Starlette does, for the log
        else:
            length = (b"content-length", b"%d" % len(body))
            headers = [length, (b"content-type", JSON.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _is_direct(self, scope: Scope) -> bool:
        return (
            scope["type"] == "http"
            and scope["method"] == self._method
            and get_route_path(scope) == self._path
            and self._is_bare()
        )

    def _is_bare(self) -> bool:
        """Whether nothing but FastAPI's own stands between the server and the route."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()  # as FastAPI does
        route, router = self._route, self.router
        return (
            self.middleware_stack is self._bare_stack
            and router.routes[0] is route
            and route.app is self._route_app
            and not route.dependencies
            and not route.dependant.dependencies
            and not router.dependencies
            and type(router) is APIRouter
            and router.middleware_stack == router.app
            and "app" not in vars(router)
            and "handle" not in vars(route)
            and not self.dependency_overrides
            and not self.root_path
            and shortcuts.DIRECT_ROUTE
        )


def may_wait(app: object, scope: Scope) -> bool:
    """Whether this request may wait for something. Only of the app as `handler.py` composes it is
    it known; a wrapper or a subclass may always wait."""
    if not (shortcuts.STRAIGHT_CYCLE and type(app) is Observer and type(app.app) is App):
        return True
    app.set_root_path(scope)
    return app.app.may_wait(scope)


class StraightCycle:
    """Runs a request that waits for nothing, without an event loop. Raises LoopNeededError."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self._scope = scope
        self._body = body
        self.response = Response(status=500, headers=[], body=b"")

    def __call__(self, app: ASGI) -> Response:
        self._scope[NO_LOOP] = True
        run_through(app(self._scope, self._receive, self._send))
        return self.response

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.response["status"] = message["status"]
            self.response["headers"] = message["headers"]
        else:
            self.response["body"] += message["body"]


class Cycle(StraightCycle):
    """A straight cycle, or Mangum's of an event loop for a request that may wait."""

    def __call__(self, app: ASGI) -> Response:
        if not may_wait(app, self._scope):
            try:
                return super().__call__(app)
            except LoopNeededError as error:
                logger.warning("a request waited: from now on each has an event loop")
                app.app.always_wait()  # type: ignore[attr-defined]  # `may_wait` knows its class
                if error.has_ended:  # and has its record, its log line and its metrics
                    return self.response
                del self._scope[NO_LOOP]
        return HTTPCycle(self._scope, self._body)(app)


def run_through(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Runs it to its end without an event loop. Raises LoopNeededError where it waits, and there
    too, so that it cleans up: `close` would fail where that waits as well."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    waited = LoopNeededError()
    try:
        for _ in range(MAX_WAITS):
            coroutine.throw(waited)
    except StopIteration:
        waited.has_ended = True
    raise waited


def _lacks_a_loop(error: Exception) -> bool:
    """As asyncio and anyio word it."""
    return isinstance(error, RuntimeError) and "event loop" in str(error)


def _is_of(module: str, function: object) -> bool:
    return type(function) is FunctionType and function.__globals__["__name__"] == module
