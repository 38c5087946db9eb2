"""An HTTP server that answers as a test says, and notes what it was asked for."""

import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from threading import Event, Thread
from typing import Literal, NamedTuple

Fault = Literal[
    "", "closed", "reset", "hanging", "truncated", "closed afterwards", "reset afterwards"
]
TOO_LONG_S = 60.0
S3_URI = "s3://models/feed"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "eu-west-1",
}


class Sent(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]  # by names in lower case
    body: bytes
    port: int  # of the client: one for each connection


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    fault: Fault = ""


Respond = Callable[[Sent], Answer]


class Scripted(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []  # in order; then `respond` is asked
        self.respond: Respond = lambda _: Answer()
        self.requests: list[Sent] = []
        self.closed = Event()  # a connection, by a fault
        self.over = Event()
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    @property
    def ports(self) -> list[int]:
        return [sent.port for sent in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body at once
    server: Scripted

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        sent = Sent(self.command, self.path, headers, body, self.client_address[1])
        server.requests.append(sent)
        answer = server.answers.pop(0) if server.answers else server.respond(sent)
        if answer.fault == "hanging":
            server.over.wait(TOO_LONG_S)
            self.close_connection = True
        elif answer.fault in {"closed", "reset"}:
            self._close(answer.fault)
        else:
            self._send(answer)
            if answer.fault:
                self._close(answer.fault)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut = len(answer.body) // 2 if answer.fault == "truncated" else len(answer.body)
        self.wfile.write(answer.body[:cut])

    def send_response(self, code: int, message: str | None = None) -> None:
        self.send_response_only(code, message)

    def _close(self, fault: str) -> None:
        self.close_connection = True
        if fault.startswith("reset"):
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        with suppress(OSError):
            self.connection.close()
        self.server.closed.set()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(certificate: Path | None = None) -> Iterator[Scripted]:
    """By TLS with a `certificate` and its key, both in one file."""
    with Scripted() as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


@contextmanager
def served_bundle(bundle: Path) -> Iterator[Scripted]:
    """An S3 that has a bundle at S3_URI."""
    with scripted() as server:
        prefix = f"/{S3_URI.removeprefix('s3://')}/"
        server.respond = lambda sent: Answer(
            body=(bundle / sent.path.removeprefix(prefix)).read_bytes()
        )
        yield server
