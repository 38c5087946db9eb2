"""FastAPI, but for the one hot route: its layers cost more than the model takes over five items.

`POST /predict` goes straight to its answer while that is all that FastAPI would do. With anything
that somebody added, such as a middleware or a dependency, it goes FastAPI's own way.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from types import FunctionType
from typing import Any

from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from feedrank.errors import FeedrankError
from feedrank.http.problems import problem
from feedrank.http.web import APIRoute, APIRouter, FastAPI, Request

JSON = "application/json"
DIRECT = "feedrank.http.fast_path"  # in a scope: what `needs_no_loop` found
Answer = Callable[[Scope, Receive], Awaitable[bytes]]
# What monitoring agents replace by their own, and the module that each is from.
PATCHED: tuple[tuple[type, str, str], ...] = (
    (FastAPI, "__call__", "fastapi.applications"),
    (FastAPI, "build_middleware_stack", "fastapi.applications"),
    (Starlette, "__call__", "starlette.applications"),
)


class App(FastAPI):
    def serve_directly(
        self, path: str, method: str, answer: Answer, waits: Callable[[], bool]
    ) -> None:
        """`answer` does what the route of this path does. `waits` tells whether it may wait."""
        self._answer, self._path, self._method, self._waits = answer, path, method, waits
        self._route = next(
            route
            for route in self.routes
            if isinstance(route, APIRoute) and (route.path, route.methods) == (path, {method})
        )
        self.routes.remove(self._route)
        self.routes.insert(0, self._route)  # so that whatever is put before it is seen
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
            and type(self).__call__ is App.__call__
            and all(_is_of(module, getattr(owner, name)) for owner, name, module in PATCHED)
        )
        self._bare_stack = stack if is_bare else None
        return stack

    def needs_no_loop(self, scope: Scope) -> bool:
        scope[DIRECT] = self._is_direct(scope)  # so that it is looked into once a request
        return scope[DIRECT] and not self._waits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (scope[DIRECT] if DIRECT in scope else self._is_direct(scope)):
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

    def _is_direct(self, scope: Scope) -> bool:
        return (
            scope["type"] == "http"
            and scope["method"] == self._method
            and get_route_path(scope) == self._path
            and self._is_bare()
        )

    def _is_bare(self) -> bool:
        """Whether nothing stands between the server and the route but what is FastAPI's own."""
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
        )


def needs_no_loop(app: Any, scope: Scope) -> bool:  # noqa: ANN401 an ASGI app
    """Whether the app says that this request waits for nothing. One that doesn't say so itself,
    such as a wrapper or a subclass with a `__call__` of its own, may wait."""
    kind: Any = type(app)
    told: bool = _tells(kind) and app.needs_no_loop(scope)
    return told


@cache
def _tells(kind: type) -> bool:
    for base in kind.__mro__:
        if "needs_no_loop" in vars(base) or "__call__" in vars(base):
            return "needs_no_loop" in vars(base) and "__call__" in vars(base)
    return False


def _is_of(module: str, function: Any) -> bool:  # noqa: ANN401 whatever was put there
    return type(function) is FunctionType and function.__globals__["__name__"] == module
