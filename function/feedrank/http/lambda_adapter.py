"""From Lambda's event to the app, and back."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from mangum import Mangum
from mangum.exceptions import LifespanFailure
from mangum.handlers import ALB, APIGateway, HTTPGateway
from mangum.protocols import LifespanCycle
from mangum.types import ASGI, LambdaContext, LambdaHandler, Response, Scope

from feedrank.errors import MalformedEventError, SettingsError, UnservedEventError
from feedrank.http.lambda_events import AUTHORIZERS, response_to_unread

HttpCycle = Callable[[Scope, bytes], Callable[[ASGI], Response]]
SERVER_HEADERS = {"host", "x-forwarded-port"}
UNREAD = {"cookies", "rawQueryString", "queryStringParameters", "multiValueQueryStringParameters"}


class HTTPGatewayOnce(HTTPGateway):
    """Mangum makes an event's scope for the request, and again to read the event's version."""

    @cached_property
    def scope(self) -> Scope:
        return super().scope


SERVED: tuple[type[LambdaHandler], ...] = (ALB, HTTPGatewayOnce, APIGateway)


class Adapter(Mangum):
    """Mangum for any event at all, with an HTTP cycle of our choice."""

    def __init__(self, app: ASGI, text_mime_types: list[str], http_cycle: HttpCycle) -> None:
        super().__init__(app, lifespan="off", text_mime_types=text_mime_types)
        self._http_cycle = http_cycle
        self._lifespan: LifespanCycle | None = None
        self.in_progress: tuple[LambdaHandler, Scope] | None = None  # or the last one

    def start(self) -> None:
        """Runs the startup of every lifespan in the app, once: Mangum would run it before each
        event, and the shutdown after it. Raises SettingsError."""
        self._lifespan = LifespanCycle(self.app, "auto")
        try:
            self._lifespan.__enter__()
        except LifespanFailure as error:
            raise SettingsError(f"EXTENSIONS: a startup failed: {error}") from error

    def stop(self) -> None:
        """Runs the shutdowns, before a SnapStart snapshot: connections don't survive it."""
        if self._lifespan:
            self._lifespan.__exit__(None, None, None)

    def restart(self) -> None:
        """After a SnapStart restore, on the new event loop."""
        if self._lifespan:
            self.start()

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Raises UnservedEventError."""
        try:
            handler, scope, body = self._read(event, context)
        except Exception as error:  # noqa: BLE001 an event can be damaged in any way
            return response_to_unread(event, context, error)
        if self._lifespan:
            scope["state"] = self._lifespan.lifespan_state.copy()
        self.in_progress = handler, scope
        return handler(self._http_cycle(scope, body)(self.app))

    def infer(self, event: dict[str, Any], context: LambdaContext) -> LambdaHandler:
        if not any(name in event for name in AUTHORIZERS):
            for kind in SERVED:
                if kind.infer(event, context, self.config):
                    return kind(event, context, self.config)
        raise UnservedEventError

    def _read(
        self, event: dict[str, Any], context: LambdaContext
    ) -> tuple[LambdaHandler, Scope, bytes]:
        handler = self.infer(event, context)
        try:
            scope = handler.scope
        except ValueError:  # a Host that Mangum can't split, such as `[::1]:443`; no Unicode
            handler = self.infer(_without_unread(event), context)
            scope = handler.scope
        if not (type(scope["method"]) is type(scope["path"]) is str):
            raise MalformedEventError("method and path are texts")
        if not isinstance(event["requestContext"], dict):
            raise MalformedEventError("requestContext is an object")
        try:
            body = handler.body
        except ValueError:  # neither base64 nor Unicode, so no JSON either
            body = b""
        return handler, scope, body


def _without_unread(event: dict[str, Any]) -> dict[str, Any]:
    """Without what the app never reads (host, cookies, query), and what is no Unicode."""
    rest = {name: part for name, part in event.items() if name not in UNREAD}
    return rest | {
        kind: {
            k: v
            for k, v in event[kind].items()
            if k.lower() not in SERVER_HEADERS and _is_unicode(k, v)
        }
        for kind in ("headers", "multiValueHeaders")
        if event.get(kind)
    }


def _is_unicode(name: str, value: str | list[str]) -> bool:
    """JSON can hold a lone surrogate; UTF-8 can't."""
    try:
        "".join((name, *value)).encode()
    except UnicodeEncodeError:
        return False
    return True
