"""The app under uvicorn, as the container images run it: `python -m feedrank.server --port 8080`.

Takes uvicorn's own flags, or variables (`UVICORN_WORKERS`); the defaults are the limits below.
"""

import math
import os
import signal
import sys
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable
from http import HTTPStatus
from threading import Timer
from types import FrameType
from typing import cast

from starlette.types import ASGIApp
from uvicorn.main import main as uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DRAIN_S = 10  # for the requests under way, after a SIGTERM: ECS kills after 30 s
EXIT_S = 2.0  # past that the process ends, whatever keeps it
HEAD_S = 10.0  # from the connection, or a head's first byte, to its last
BODY_S = 10.0  # from the head to the body's end: 64 KiB take 2 s at 256 kbit/s
UPLOAD_DRAIN_S = 5.0  # for the rest of a body, after a SIGTERM
CHECK_S = 1.0
PROBES = (b"/live", b"/ready", b"/ping")
KEEP_ALIVE_S = 65  # past a load balancer's 60 s: it responds with 502 where the server closes first
MOST_HEAD_BYTES = 65_536  # as a load balancer has it; API Gateway lets 10,240 through
MOST_HEADERS = 100
MOST_PIPELINED = 16  # requests that wait in one connection; browsers and proxies send none
MOST_AT_ONCE = 512  # requests or connections: past it 503, past its double no connection

LIMITS = {
    "http": "feedrank.server:BoundedProtocol",
    "ws": "none",
    "limit_concurrency": MOST_AT_ONCE,
    "timeout_keep_alive": KEEP_ALIVE_S,
    "timeout_graceful_shutdown": DRAIN_S,
    "access_log": False,
}


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's own protocol with httptools limits neither the size of a head nor the time that a
    request takes to arrive."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("Transport", transport))
        self._unread = 0  # bytes since the parser last made something of them
        self._stuck = False
        self._refusal = HTTPStatus.BAD_REQUEST
        self._due_s = self.loop.time() + HEAD_S
        self._check: TimerHandle = self.loop.call_later(CHECK_S, self._look)
        if self.limit_concurrency and len(self.connections) > 2 * self.limit_concurrency:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._due_s == math.inf:  # empty lines, which begin nothing
            self._due_s = self.loop.time() + HEAD_S
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MOST_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._due_s = self.loop.time() + HEAD_S
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        is_large = self._unread > MOST_HEAD_BYTES and self._head_bytes() > MOST_HEAD_BYTES
        if is_large or len(self.headers) > MOST_HEADERS:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("the head is too large")  # the parser stops, and uvicorn responds
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests wait in this connection")
        self._unread = 0
        self._due_s = self.loop.time() + BODY_S
        limit = self.limit_concurrency
        if self.url.partition(b"?")[0].endswith(PROBES):  # who is busy is not to be replaced
            self.limit_concurrency = None
        super().on_headers_complete()
        self.limit_concurrency = limit

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._due_s = math.inf  # until more comes; between requests uvicorn has its own limit
        super().on_message_complete()

    def shutdown(self) -> None:
        if self._due_s != math.inf:
            self._due_s = min(self._due_s, self.loop.time() + UPLOAD_DRAIN_S)
        super().shutdown()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 uvicorn's, for what it can't parse
        self._refuse(self._refusal)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _look(self) -> None:
        self._check = self.loop.call_later(CHECK_S, self._look)
        if self.loop.time() > self._due_s and not self.flow.read_paused:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        was_stuck = self._stuck
        self._stuck = self.transport.is_closing() or self.flow.write_paused
        if was_stuck and self._stuck:  # the other side reads nothing
            self.transport.abort()

    def _refuse(self, status: HTTPStatus) -> None:
        """Once a response has begun, the connection can only be closed."""
        if self.transport.is_closing():
            return
        body = f'{{"title": "{status.phrase}", "status": {status}}}'
        if self._may_answer():
            head = (
                f"HTTP/1.1 {status} {status.phrase}",
                "content-type: application/problem+json",
                f"content-length: {len(body)}",
                "connection: close",
            )
            self.transport.write("\r\n".join([*head, "", body]).encode())
        self.transport.close()

    def _may_answer(self) -> bool:
        if self.pipeline:
            return False
        reads_body = self._due_s != math.inf and self.cycle and not self.cycle.response_complete
        return not self.cycle.response_started if reads_body else self._unread > 0


def app() -> ASGIApp:
    """uvicorn calls this when it has its signal handlers, in each worker."""
    import handler

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _bounded(cast("Callable[..., None]", signal.getsignal(number))))
    return handler.app()


def _bounded(drain: Callable[..., None]) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        last = Timer(DRAIN_S + EXIT_S, os._exit, (1,))
        last.daemon = True
        last.start()
        drain(number, frame)

    return handle


def _end(_number: int, _frame: FrameType | None) -> None:
    """No thread is waited for: what was served is written, and what hangs would never end."""
    os._exit(0)


def main() -> None:
    # uvicorn sends itself the signal again when all is drained. A container's first process ignores
    # a SIGTERM that has no handler: then, and while the model is loaded.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    arguments = sys.argv[1:]
    if arguments[-1:] == ["serve"]:  # SageMaker's, after those of the image's entry point
        arguments.pop()
    flags = ["feedrank.server:app", "--factory", *arguments]
    uvicorn.main(args=flags, prog_name="feedrank.server", default_map=LIMITS)


if __name__ == "__main__":
    main()
