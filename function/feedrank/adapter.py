"""From Lambda's event to the app, and back."""

from collections.abc import Callable, Coroutine
from typing import Any

from mangum import Mangum
from mangum.types import ASGI, Headers, Message, Scope


class Adapter(Mangum):
    """Mangum, but a request that waits for nothing is run without an event loop: a turn of one
    takes half as long as the model takes over five items.

    `waits` tells by a request's scope whether it may wait.
    """

    def __init__(self, app: ASGI, waits: Callable[[Scope], bool], **options: Any) -> None:  # noqa: ANN401 Mangum's
        super().__init__(app, **options)
        self._waits = waits

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401 Lambda's
        handler = self.infer(event, context)
        try:
            body = handler.body
        except ValueError:  # neither base64 nor Unicode, so no JSON either
            return self(event | {"body": "", "isBase64Encoded": False}, context)
        scope = handler.scope
        if self._waits(scope):
            return super().__call__(event, context)
        exchange = _Exchange(body)
        _run_through(self.app(scope, exchange.receive, exchange.send))
        return handler(
            {"status": exchange.status, "headers": exchange.headers, "body": exchange.answer}
        )


class _Exchange:
    """One request and its answer, as ASGI's messages have them."""

    status: int
    headers: Headers

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self.answer = b""

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._asked, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
        else:
            self.answer += message["body"]


def _run_through(coroutine: Coroutine[Any, Any, None]) -> None:
    """To its end, in one go. Raises RuntimeError where it waits on the way."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a request waited that was said not to")
