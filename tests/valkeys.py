"""Servers of Valkey or Redis for tests: a real one where there is one, else fakeredis."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import NamedTuple

from feedrank.valkey.connection import Address, Connection, Server, ValkeyError

COMMAND = shutil.which("valkey-server") or shutil.which("redis-server")
START_S = 30.0


class Running(NamedTuple):
    port: int
    process: subprocess.Popen[bytes]

    def call(self, *command: str | bytes, password: str = "") -> object:
        server = Server(Address("127.0.0.1", self.port), password=password)
        connection = Connection(server.address, server, float("inf"))
        try:
            return connection.call(*command, deadline_s=float("inf"))
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def real(directory: Path, *options: str, port: int = 0, password: str = "") -> Iterator[Running]:
    """A server that keeps nothing on disk, ready for commands."""
    assert COMMAND
    port = port or free_port()
    command = [COMMAND, "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options]
    if password:
        command += ["--requirepass", password]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    running = Running(port, process)
    try:
        _wait_for(running, password)
        yield running
    finally:
        process.kill()
        process.wait()


def _wait_for(running: Running, password: str) -> None:
    end_s = monotonic() + START_S
    while True:
        try:
            running.call("PING", password=password)
        except ValkeyError:
            if monotonic() > end_s or running.process.poll() is not None:
                raise
            sleep(0.01)
        else:
            return


@contextmanager
def fake() -> Iterator[int]:
    """fakeredis on a port."""
    from fakeredis import TcpFakeServer

    class FakeServer(TcpFakeServer):
        request_queue_size = 128
        daemon_threads = True

    server = FakeServer(("127.0.0.1", 0), server_type="valkey")
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
