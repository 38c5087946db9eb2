"""A test bench for faults: an S3 that misbehaves, the app on the local Lambda or under uvicorn, and
whatever else a fault needs, all of it removed at the end."""

import asyncio
import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from faulty_table import TABLE, Front, Rows, front
from feedops.errors import FunctionError
from feedops.local import tether
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.workspace import FUNCTION
from feedrank.bundle.layout import MANIFEST, parse_manifest
from feedrank.features.spec_reader import parse_spec
from long.wire import SECRET
from stack.faulty import FaultyFront
from uvicorns import uvicorn

URI = "s3://models/feed"
PREFIX = "/models/feed/"
GOOD_USER, GOOD_ITEMS = 42, [17, 256, 3]
GOOD: dict[str, Any] = {"user_id": GOOD_USER, "item_ids": GOOD_ITEMS}
PATIENCE_S = 60.0  # far beyond every expected response


class Response(NamedTuple):
    status: int
    body: dict[str, Any]


class FaultyS3(ThreadingHTTPServer):
    """Serves a bundle, subject to `fault`. Connections are refused until it is `up`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, bundle: Path) -> None:
        super().__init__(("127.0.0.1", 0), S3Handler, bind_and_activate=False)
        self.server_bind()
        self.bundle = bundle
        self.fault = ""
        self.over = Event()
        self._is_up = False

    def up(self) -> None:
        if not self._is_up:
            self._is_up = True
            self.server_activate()
            Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnected."""

    def close(self) -> None:
        self.over.set()
        if self._is_up:
            self.shutdown()
        self.server_close()


ERRORS = {
    "denied": (403, "AccessDenied"),
    "missing": (404, "NoSuchKey"),
    "throttled": (503, "SlowDown"),
    "failing": (500, "InternalError"),
    "expired": (400, "ExpiredToken"),
}


class S3Handler(BaseHTTPRequestHandler):
    server: FaultyS3

    def do_GET(self) -> None:
        name = self.path.partition(PREFIX)[2].partition("?")[0]
        content, fault = (self.server.bundle / name).read_bytes(), self.server.fault
        if fault in ERRORS:
            status, code = ERRORS[fault]
            self._send(status, f"<Error><Code>{code}</Code></Error>".encode())
        elif fault == "a black hole":
            self.server.over.wait()
        elif fault == "reset":
            self.close_connection = True
        elif fault == "a web page":
            self._send(200, b"<!doctype html><p>Please log in")
        elif fault == "truncated" and name.endswith(".safetensors"):
            self._send(200, content[: len(content) // 2], len(content))
        elif fault == "a wrong bit" and name.endswith(".onnx"):
            middle = len(content) // 2
            self._send(200, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        elif fault == "without end" and name.endswith("manifest.json"):
            self._endless(b" " * (1 << 16), 0)
        elif fault == "dripping":
            self._endless(b" ", 0.1)
        else:
            if fault == "slow":
                self.server.over.wait(0.1)
            self._send(200, content)

    def _send(self, status: int, content: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def _endless(self, part: bytes, pause_s: float) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.over.wait(pause_s):
            self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Lab:
    """`variables` are the function's environment; `send` makes one request."""

    directory: Path
    bundle: Path
    stack: ExitStack
    aws: str  # the URL of moto
    variables: dict[str, str] = field(default_factory=dict)
    stdout: Any = None
    flags: tuple[str, ...] = ()
    send: Callable[..., Response] = lambda *_: Response(0, {})
    pid: Callable[[], int] = lambda: 0
    url: str = ""
    table: Front = field(init=False)

    def __post_init__(self) -> None:
        self.s3 = FaultyS3(self.bundle)
        self.stack.callback(self.s3.close)
        self.s3_url = f"http://127.0.0.1:{self.s3.server_address[1]}"
        self.variables |= {
            "MODEL_URI": URI,
            "MODEL_LOAD_SECONDS": "2",
            "MODEL_RETRY_SECONDS": "0.001",
            "MODEL_CACHE_DIR": str(self.directory / "cache"),
            "AWS_ENDPOINT_URL_S3": self.s3_url,
            "AWS_ACCESS_KEY_ID": "example",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    # Before the start

    def from_directory(self) -> None:
        self.variables["MODEL_URI"] = str(self.bundle)

    def with_fallback(self) -> None:
        self.variables |= {"MODEL_FALLBACK": "layer", "MODEL_LAYER_DIR": str(self.bundle)}

    def with_firehose(self) -> FaultyFront:
        firehose = self.stack.enter_context(FaultyFront())
        self.variables |= {
            "AWS_ENDPOINT_URL_FIREHOSE": firehose.url,
            "DECISION_STREAM": "decisions",
        }
        return firehose

    def with_table(self) -> None:
        """Live features of the user and the items of GOOD."""
        self.table = self.stack.enter_context(front(self.aws))
        manifest = parse_manifest((self.bundle / MANIFEST).read_bytes())
        rows = Rows(parse_spec(manifest.feature_spec), self.aws)
        rows.put_user(GOOD_USER, (0.5, 10.0, 3.0, 7.0), {256: 2.0})
        for item in GOOD_ITEMS:
            rows.put_item(item, (0.25, 20.0, 2.0, 1.0))
        self.variables |= {
            "AWS_ENDPOINT_URL_DYNAMODB": self.table.url,
            "FEATURES_URI": f"dynamodb://{TABLE}",
            "FEATURES_TIMEOUT_MS": "1000",
            "FEATURES_CACHE_S": "0",
        }

    # The start

    def under_uvicorn(self) -> None:
        env = {name: value for name, value in self.variables.items() if name != "MODEL_URI"}
        options = {"stdout": self.stdout} if self.stdout is not None else {}
        server = self.stack.enter_context(
            uvicorn(self.variables["MODEL_URI"], *self.flags, **options, **env)
        )
        self.url, address = server.url, server.url.removeprefix("http://")

        def send(body: Any = GOOD, path: str = "/predict", **headers: str) -> Response:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            with closing(HTTPConnection(address, timeout=PATIENCE_S)) as connection:
                connection.request("POST" if path == "/predict" else "GET", path, data, headers)
                reply = connection.getresponse()
                return Response(reply.status, parse(reply.read()))

        self.send, self.pid = send, lambda: server.process.pid

    def on_the_local_lambda(self) -> None:
        runner = self.stack.enter_context(asyncio.Runner())
        function = Function(FUNCTION, self.variables)
        environment = runner.run(
            ExecutionEnvironment.start(
                function, log=self.directory / "environment.log", temporary=self.directory / "tmp"
            )
        )
        self.stack.callback(lambda: runner.run(environment.stop()))

        def send(body: Any = GOOD, path: str = "/predict") -> Response:
            method = "POST" if path == "/predict" else "GET"
            payload = event(body, method, path) if not isinstance(body, Raw) else body.event
            try:
                reply = json.loads(runner.run(environment.invoke(json.dumps(payload).encode())))
            except FunctionError as error:
                return Response(502, {"errorType": str(error).partition(":")[0]})
            return Response(reply["statusCode"], parse(reply["body"].encode()))

        self.send = send
        self.pid = lambda: runtime_of(environment._process.session)


class Raw(NamedTuple):
    event: Any


def event(body: Any, method: str = "POST", path: str = "/predict") -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": {},
        "requestContext": {
            "requestId": "r",
            "http": {"method": method, "path": path, "sourceIp": "192.0.2.1"},
        },
        "body": json.dumps(body),
    }


def parse(body: bytes) -> dict[str, Any]:
    assert SECRET.encode() not in body
    with suppress(ValueError):
        content = json.loads(body)
        return content if isinstance(content, dict) else {}
    return {}


def runtime_of(session: int) -> int:
    """The process that runs the function."""
    (pid,) = [
        pid
        for pid in tether.members_of(session)
        if b"-m\0awslambdaric" in (cmd := Path(f"/proc/{pid}/cmdline").read_bytes())
        and b"rie" not in cmd
    ]
    return pid


def nowhere() -> str:
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"
