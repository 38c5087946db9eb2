"""The HTTP server in front of the local function, in place of API Gateway."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from feedops.errors import FunctionError, MalformedResponseError, ThrottledError
from feedops.local import gateway
from feedops.local.gateway import HttpRequest, HttpResponse
from feedrank.settings import MAX_EVENT_BYTES

DRAIN_S = 5.0  # for requests in flight when the front closes
LARGEST_LINE_BYTES = 65_536  # over API Gateway's limit, so that the front itself can respond 431

logger = logging.getLogger(__name__)

Invoke = Callable[[bytes], Awaitable[bytes]]


class Front:
    def __init__(self, invoke: Invoke, timeout_s: float = gateway.INTEGRATION_TIMEOUT_S) -> None:
        self._invoke = invoke
        self._timeout_s = timeout_s
        self._invocations: set[asyncio.Task[bytes]] = set()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        request_id = gateway.new_request_id()
        if _head_bytes(request) > gateway.LARGEST_HEAD_BYTES:
            response = gateway.HEAD_TOO_LARGE
        elif not request.path.startswith("/"):  # such as `*`, or another server's address
            response = gateway.BAD_REQUEST
        elif not await _meets_expectation(request):
            response = gateway.EXPECTATION_FAILED
        else:
            response = await self._respond(request, request_id)
        headers = [*response.headers, ("apigw-requestid", request_id)]
        return web.Response(status=response.status, headers=headers, body=response.body)

    async def _respond(self, request: web.BaseRequest, request_id: str) -> HttpResponse:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return gateway.TOO_LARGE
        event = gateway.to_event(_http_request(request, body), request_id, time.time())
        payload = json.dumps(event).encode()
        if len(payload) > MAX_EVENT_BYTES:
            return gateway.TOO_LARGE
        try:
            return gateway.to_response(await self._invoke_in_time(payload))
        except ThrottledError as error:
            logger.warning("%s %s: %s", request.method, request.path, error)
            return gateway.TOO_MANY
        except TimeoutError:
            logger.warning("%s %s: no response in time", request.method, request.path)
            return gateway.UNAVAILABLE
        except (FunctionError, MalformedResponseError) as error:
            logger.warning("%s %s: %s", request.method, request.path, error)
            return gateway.INTERNAL_ERROR

    async def _invoke_in_time(self, payload: bytes) -> bytes:
        """Raises TimeoutError. The invocation itself goes on, then and when the caller hangs up, as
        in Lambda."""
        invocation = asyncio.ensure_future(self._invoke(payload))
        self._invocations.add(invocation)
        invocation.add_done_callback(self._invocations.discard)
        async with asyncio.timeout(self._timeout_s):
            return await asyncio.shield(invocation)


@asynccontextmanager
async def serving(front: Front, at: socket.socket) -> AsyncIterator[None]:
    """Listens on a bound socket while the context is open. aiohttp's own application would answer
    some requests itself, and echo parts of them."""
    server = web.Server(
        front.handle,
        request_factory=_request,
        access_log=None,
        auto_decompress=False,  # the function decompresses a body, or refuses it
        max_line_size=LARGEST_LINE_BYTES,
        max_field_size=LARGEST_LINE_BYTES,
    )
    runner = web.ServerRunner(server, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, at).start()
        yield
    finally:
        await runner.cleanup()


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop, limit = asyncio.get_running_loop(), gateway.LARGEST_REQUEST_BYTES
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)


async def _meets_expectation(request: web.BaseRequest) -> bool:
    """Tells a client that waits for it to send the body; there is nothing else to expect."""
    expected = request.headers.get("Expect")
    if expected is None:
        return True
    if expected.lower() != "100-continue":
        return False
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as in aiohttp: the response has not begun
    return True


def _http_request(request: web.BaseRequest, body: bytes) -> HttpRequest:
    _, port, *_ = request.get_extra_info("sockname")
    return HttpRequest(
        method=request.method,
        path=request.path,
        query=request.raw_path.partition("?")[2],
        headers=tuple((name.decode(), gateway.header_text(v)) for name, v in request.raw_headers),
        body=body,
        source_ip=request.remote or "",
        protocol=f"HTTP/{request.version.major}.{request.version.minor}",
        port=port,
    )


def _head_bytes(request: web.BaseRequest) -> int:
    """What API Gateway's quota counts: the request line and the header values."""
    line = f"{request.method} {request.raw_path} HTTP/1.1"
    return len(line) + sum(len(value) for _, value in request.raw_headers)
