"""HTTP load from a process of its own that costs a server's machine little:

python -m long.load URL BODIES CONNECTIONS SECONDS RATE_PER_S

With a rate of 0 each connection sends again as soon as it has a response. With a rate, requests
start at fixed moments, whatever became of those before, and a request's time runs from when it was
due. The result is one line of JSON. A full HTTP client takes more of a core for each request than
the servers do; this one knows only what they send: a status and a content-length.
"""

import asyncio
import json
import os
import subprocess
import sys
from asyncio import SelectorEventLoop, Transport
from collections import Counter, deque
from itertools import cycle
from pathlib import Path
from selectors import SelectSelector
from time import perf_counter
from typing import NamedTuple, cast
from urllib.parse import urlsplit

TESTS = Path(__file__).parents[1]
GRACE_S = 60.0  # for the last responses, and for the start of the process


class Load(NamedTuple):
    """Latencies are in ms; a status of 0 is a connection that ended without a response."""

    per_s: float
    latencies_ms: list[float]
    statuses: dict[str, int]


def drive(
    url: str, bodies: Path, seconds: float, *, connections: int, rate_per_s: float = 0.0
) -> Load:
    """`bodies` is a file with one body per line."""
    command = [sys.executable, "-m", "long.load", url, bodies, connections, seconds, rate_per_s]
    process = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        timeout=seconds + 2 * GRACE_S,
        check=True,
        stdout=subprocess.PIPE,
    )
    return Load(*json.loads(process.stdout))


class Connection(asyncio.Protocol):
    """One request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("Transport", transport)
        self._response: asyncio.Future[int] | None = None
        self._received = b""
        self.is_open = True

    def send(self, request: bytes) -> "asyncio.Future[int]":
        """The status of its response, once that has arrived as a whole."""
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._response

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank_line, body = self._received.partition(b"\r\n\r\n")
        if not blank_line or self._response is None:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) >= int(length):
            self._received = b""
            self.is_open = b"connection: close" not in head.lower()
            self._response.set_result(int(head[9:12]))

    def connection_lost(self, _exc: Exception | None) -> None:
        self.is_open = False
        if self._response is not None and not self._response.done():
            self._response.set_result(0)


class Client:
    """Idle connections are used again; with none there is a new one."""

    def __init__(self, url: str, bodies: Path) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        head += "content-type: application/json\r\n"
        self._requests = cycle(
            f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
            for body in bodies.read_bytes().splitlines()
        )
        self._idle: deque[Connection] = deque()
        self.latencies_ms: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def post(self, due: float) -> None:
        while self._idle and not self._idle[-1].is_open:
            self._idle.pop()
        connection = self._idle.pop() if self._idle else await self._connect()
        status = await connection.send(next(self._requests))
        self.latencies_ms.append(1_000 * (perf_counter() - due))
        self.statuses[status] += 1
        self._idle.append(connection)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, *self._address))[1]


async def closed_loop(client: Client, connections: int, seconds: float) -> None:
    end = perf_counter() + seconds

    async def repeat() -> None:
        while (now := perf_counter()) < end:
            await client.post(now)

    await asyncio.gather(*(repeat() for _ in range(connections)))


async def open_loop(client: Client, rate_per_s: float, seconds: float) -> None:
    start = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate_per_s * seconds)):
            due = start + number / rate_per_s
            await asyncio.sleep(max(0.0, due - perf_counter()))
            group.create_task(client.post(due))


def _main(url: str, bodies: str, connections: str, seconds: str, rate_per_s: str) -> None:
    client, rate = Client(url, Path(bodies)), float(rate_per_s)
    # epoll sleeps whole milliseconds, select to the microsecond: no bursts that nobody sent.
    with asyncio.Runner(loop_factory=lambda: SelectorEventLoop(SelectSelector())) as runner:
        begun = perf_counter()
        if rate:
            runner.run(open_loop(client, rate, float(seconds)))
        else:
            runner.run(closed_loop(client, int(connections), float(seconds)))
        per_s = client.statuses[200] / (perf_counter() - begun)
    sys.stdout.write(json.dumps([per_s, client.latencies_ms, client.statuses]) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
