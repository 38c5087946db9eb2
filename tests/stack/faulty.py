"""A proxy in front of moto that fails as AWS does, which moto never does."""

import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.request import Request, urlopen

Fault = Literal["throttled", "held", "dropped", "late", "none"]
THROTTLED = b'{"__type": "ServiceUnavailableException", "message": "Slow down."}'
ACCEPTED = b'{"RecordId": "1"}'
TOO_LONG_S = 60.0  # or until the test is over


class FaultyFront:
    """Each request consumes the next of `faults`, or gets the `usual` one. Without a fault it is
    forwarded to `upstream`, or accepted here. A held request is throttled once `release` is set.

    The first request sets `arrived`. `ports` are the clients' ports, one for each request;
    `bodies` those that were accepted here."""

    def __init__(self, upstream: str | None = None, usual: Fault = "none") -> None:
        self.faults: deque[Fault] = deque()
        self.usual = usual
        self.bodies: list[bytes] = []
        self.release = threading.Event()
        self.arrived = threading.Event()
        self.ports: list[int] = []
        self.over = threading.Event()
        self.upstream = upstream
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # simultaneous connections; the default is 5


def _handler(front: FaultyFront) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            front.ports.append(self.client_address[1])
            front.arrived.set()
            fault: Fault = front.faults.popleft() if front.faults else front.usual
            if fault == "held":
                front.release.wait(TOO_LONG_S)
                fault = "throttled"
            if fault == "throttled":
                self._respond(503, THROTTLED)
            elif fault == "dropped":
                self.close_connection = True
            else:
                content = self._forward(body) if front.upstream else self._accept(body)
                if fault == "late":
                    front.over.wait(TOO_LONG_S)
                    self.close_connection = True
                else:
                    self._respond(200, content)

        def _accept(self, body: bytes) -> bytes:
            front.bodies.append(body)
            return ACCEPTED

        def _forward(self, body: bytes) -> bytes:
            headers = {k: v for k, v in self.headers.items() if k.lower() != "content-length"}
            with urlopen(Request(f"{front.upstream}{self.path}", body, headers)) as response:
                content: bytes = response.read()
            return content

        def _respond(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the library's
            pass

    return Handler
