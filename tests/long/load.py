"""HTTP load from a process of its own that costs a server's machine little:

python -m long.load URL BODIES CONNECTIONS SECONDS RATE_PER_S

With a rate of 0 each connection sends again as soon as it has a response. With a rate, requests
start at fixed moments, whatever became of those before, on a new connection where none is idle.
The result is one line of JSON. A full HTTP client takes more of a core for each request than the
servers do; this one knows only what they send: a status and a content-length.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
from asyncio import SelectorEventLoop, Transport
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from selectors import SelectSelector
from time import perf_counter
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from feedbench.machine import on_last_core

TESTS = Path(__file__).parents[1]
GRACE_S = 60.0  # for the last responses, and for the start of the process


class Load(NamedTuple):
    """Milliseconds from a request's first byte out to its response's last byte in, and from the
    moment that it was due to its first byte out, which the server can't delay. A status of 0 is a
    connection that ended without a response."""

    per_s: float
    latencies_ms: list[float]
    late_ms: list[float]
    statuses: dict[str, int]


def drive(
    url: str, bodies: Path, seconds: float, *, connections: int, rate_per_s: float = 0.0
) -> Load:
    """`bodies` is a file with one body per line."""
    command = [sys.executable, "-m", "long.load", url, bodies, connections, seconds, rate_per_s]
    process = subprocess.run(
        on_last_core(list(map(str, command))),
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        timeout=seconds + 2 * GRACE_S,
        check=True,
        stdout=subprocess.PIPE,
    )
    return Load(*json.loads(process.stdout))


class Connection(asyncio.Protocol):
    """One request at a time; `done` is called with its status."""

    def __init__(self, done: Callable[["Connection", int], None]) -> None:
        self._done = done
        self._received = b""
        self._is_waiting = False
        self.is_open = True
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("Transport", transport)

    def send(self, request: bytes) -> None:
        self._is_waiting = True
        self.sent = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank_line, body = self._received.partition(b"\r\n\r\n")
        if not blank_line:
            return
        head = head.lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) >= int(length):
            self._received = b""
            self._is_waiting = False
            self.is_open = b"connection: close" not in head
            self._done(self, int(head[9:12]))

    def connection_lost(self, _exc: Exception | None) -> None:
        self.is_open = False
        if self._is_waiting:
            self._is_waiting = False
            self._done(self, 0)


class Client:
    def __init__(self, url: str, bodies: Path) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        head += "content-type: application/json\r\n"
        self._requests = cycle(
            f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
            for body in bodies.read_bytes().splitlines()
        )
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._waiting = 0  # requests without a response
        self._then: Callable[[], None]  # after each response
        self._finished = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        self.latencies_ms: list[float] = []
        self.late_ms: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def closed_loop(self, connections: int, seconds: float) -> None:
        end = perf_counter() + seconds

        def again() -> None:
            if (now := perf_counter()) < end:
                self._post(now)
            elif self._waiting == 0:
                self._finished.set()

        self._then = again
        for _ in range(connections):
            self._post(perf_counter())
        await self._finished.wait()

    async def open_loop(self, rate_per_s: float, seconds: float) -> None:
        start, total, sent = perf_counter(), round(rate_per_s * seconds), 0

        def send_due() -> None:
            nonlocal sent
            while sent < total and (due := start + sent / rate_per_s) <= perf_counter():
                sent += 1
                self._post(due)
            if sent < total:
                self._loop.call_later(start + sent / rate_per_s - perf_counter(), send_due)

        def is_last() -> None:
            if sent == total and self._waiting == 0:
                self._finished.set()

        self._then = is_last
        send_due()
        await self._finished.wait()

    def _post(self, due: float) -> None:
        self._waiting += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._send(connection, due)
                return
        task = self._loop.create_task(self._open_and_send(due))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_and_send(self, due: float) -> None:
        connection = Connection(self._done)
        try:
            await self._loop.create_connection(lambda: connection, *self._address)
        except OSError:
            connection.sent, connection.is_open = due, False
            self._done(connection, 0)
        else:
            self._send(connection, due)

    def _send(self, connection: Connection, due: float) -> None:
        connection.send(next(self._requests))
        self.late_ms.append(1_000 * (connection.sent - due))

    def _done(self, connection: Connection, status: int) -> None:
        self.latencies_ms.append(1_000 * (perf_counter() - connection.sent))
        self.statuses[status] += 1
        self._waiting -= 1
        self._idle.append(connection)
        self._then()


async def load(url: str, bodies: str, connections: str, seconds: str, rate_per_s: str) -> Load:
    client, rate, begun = Client(url, Path(bodies)), float(rate_per_s), perf_counter()
    if rate:
        await client.open_loop(rate, float(seconds))
    else:
        await client.closed_loop(int(connections), float(seconds))
    per_s = client.statuses[200] / (perf_counter() - begun)
    statuses = {str(status): number for status, number in client.statuses.items()}
    return Load(per_s, client.latencies_ms, client.late_ms, statuses)


if __name__ == "__main__":
    gc.disable()  # nothing here makes circles; a collection would delay requests
    # epoll sleeps whole milliseconds, select to the microsecond: no bursts that nobody sent.
    with asyncio.Runner(loop_factory=lambda: SelectorEventLoop(SelectSelector())) as runner:
        sys.stdout.write(json.dumps(runner.run(load(*sys.argv[1:]))) + "\n")
