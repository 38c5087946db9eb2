"""The one text that SageMaker hands from a caller to a container and back: CustomAttributes.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
TRACE = b"x-amzn-trace-id"
# X-Ray's header or its id alone, or W3C's traceparent. A caller can send anything there: whatever
# else it is, it is not read, logged or sent back.
XRAY = re.compile(rb"(?:(?:.*;)?Root=)?(1-[0-9a-f]{8}-[0-9a-f]{24})(?:;.*)?")
W3C = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{8})([0-9a-f]{24})-[0-9a-f]{16}-[0-9a-f]{2}")


class TraceAttributes:
    """Makes the trace id in CustomAttributes that of the request, and sends it back with the
    response, where no other header of ours arrives."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace_id = trace_id_of(scope)
        if trace_id is None:
            await self._app(scope, receive, send)
            return
        root = b"Root=" + trace_id

        async def send_with_trace(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (ATTRIBUTES, root)]
                message = {**message, "headers": headers}
            await send(message)

        others = [header for header in scope["headers"] if header[0] != TRACE]
        await self._app({**scope, "headers": [*others, (TRACE, root)]}, receive, send_with_trace)


def trace_id_of(scope: Scope) -> bytes | None:
    """In X-Ray's form; None where the attributes hold none."""
    attributes = dict(scope.get("headers", ())).get(ATTRIBUTES, b"")
    if match := XRAY.fullmatch(attributes):
        return match[1]
    if match := W3C.fullmatch(attributes):
        return b"1-%b-%b" % match.groups()
    return None
