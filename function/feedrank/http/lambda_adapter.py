"""From Lambda's event to the app, and back."""

from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, TypeVar

from mangum import Mangum
from mangum.handlers import ALB, APIGateway, HTTPGateway
from mangum.protocols import HTTPCycle
from mangum.types import ASGI, LambdaHandler, Message, Response, Scope

from feedrank.errors import MalformedEventError, UnservedEventError
from feedrank.http.lambda_events import AUTHORIZERS, answer_to_unread

Result = TypeVar("Result")


class HTTPGatewayOnce(HTTPGateway):
    """Mangum makes an event's scope for the request, and again to read the event's version."""

    @cached_property
    def scope(self) -> Scope:
        return super().scope


SERVED: tuple[type[LambdaHandler], ...] = (ALB, HTTPGatewayOnce, APIGateway)
SERVER_HEADERS = {"host", "x-forwarded-port"}
UNREAD = {"cookies", "rawQueryString", "queryStringParameters", "multiValueQueryStringParameters"}


class Adapter(Mangum):
    """Mangum, but a request that waits for nothing is run without an event loop, since a turn of
    one costs more than all else here. `waits` tells by a request's scope whether it may wait.
    """

    def __init__(
        self, app: ASGI, waits: Callable[[Scope], bool], text_mime_types: list[str]
    ) -> None:
        super().__init__(app, lifespan="off", text_mime_types=text_mime_types)
        self._waits = waits

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401 Lambda's
        """Raises UnservedEventError."""
        try:
            handler, scope, body = self._read(event, context)
        except Exception as error:  # noqa: BLE001 an event can be damaged in any way
            return answer_to_unread(event, context, error)
        cycle = HTTPCycle if self._waits(scope) else StraightCycle
        return handler(cycle(scope, body)(self.app))

    def infer(self, event: dict[str, Any], context: Any) -> LambdaHandler:  # noqa: ANN401 Lambda's
        if not any(name in event for name in AUTHORIZERS):
            for kind in SERVED:
                if kind.infer(event, context, self.config):
                    return kind(event, context, self.config)
        raise UnservedEventError

    def _read(self, event: dict[str, Any], context: Any) -> tuple[LambdaHandler, Scope, bytes]:  # noqa: ANN401
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


class StraightCycle:
    """One request and its answer in one go, in the place of Mangum's cycle of an event loop."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self._scope = scope
        self._asked = body
        self._answer = Response(status=500, headers=[], body=b"")

    def __call__(self, app: ASGI) -> Response:
        run_through(app(self._scope, self._receive, self._send))
        return self._answer

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": self._asked, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._answer["status"] = message["status"]
            self._answer["headers"] = message["headers"]
        else:
            self._answer["body"] += message["body"]


def run_through(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """To its end, without an event loop. Raises RuntimeError where it waits on the way."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    coroutine.close()
    raise RuntimeError("a request waited that was said not to")


def _without_unread(event: dict[str, Any]) -> dict[str, Any]:
    """The app never reads where it was asked, a cookie or a query, nor what is no Unicode."""
    kept = {name: part for name, part in event.items() if name not in UNREAD}
    return kept | {
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
