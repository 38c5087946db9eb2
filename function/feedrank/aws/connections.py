"""HTTP/1.1 connections to one endpoint, which stay open between requests.

A container may be frozen between two requests, for an hour even: a connection that has been closed
in that time is noticed, and a new one takes its place.
"""

import re
import select
import socket
import ssl
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    RemoteDisconnected,
)
from pathlib import Path
from time import perf_counter
from typing import Self

from feedrank.aws.endpoints import Endpoint
from feedrank.aws.errors import AwsConfigError, UnreachableError
from feedrank.aws.proxies import proxy_for
from feedrank.aws.signing import Request

MAX_CHUNK = 1 << 18  # bytes of one read


class Exchange:
    """A response, whose body is still to be read. Its connection is used again where the body was
    read to its end, and closed otherwise."""

    def __init__(
        self,
        connections: "Connections",
        connection: HTTPConnection,
        response: HTTPResponse,
        deadline_s: float,
    ) -> None:
        self._connections = connections
        self._connection = connection
        self._response = response
        self._deadline_s = deadline_s
        self.status = response.status
        self.length = response.length  # of the body; None where the server doesn't say

    def header(self, name: str) -> str:
        return self._response.headers.get(name) or ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connections.put_back(self._connection, self._response)

    def read_into(self, buffer: memoryview) -> int:
        """The number of bytes read, 0 at the end. Raises UnreachableError, also where the body ends
        before its length, and past the deadline, which it compares with before it reads."""
        if perf_counter() > self._deadline_s:
            raise UnreachableError("no time is left")
        try:
            count = self._response.readinto(buffer)
        except (OSError, HTTPException, ValueError) as error:
            raise UnreachableError(f"the response broke off: {reason(error)}") from error
        if not count and self._response.length:
            raise UnreachableError(f"the response ended {self._response.length} bytes too early")
        return count

    def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises UnreachableError, also where it has more than `max_bytes`."""
        body, buffer = bytearray(), memoryview(bytearray(min(self.length or MAX_CHUNK, MAX_CHUNK)))
        while count := self.read_into(buffer):
            body += buffer[:count]
            if len(body) > max_bytes:
                raise UnreachableError(f"the response has more than {max_bytes} bytes")
        return bytes(body)


class Connections:
    """Safe for threads: each takes a connection for itself."""

    def __init__(
        self, endpoint: Endpoint, variables: Mapping[str, str], connect_timeout_s: float
    ) -> None:
        """Raises AwsConfigError."""
        self._endpoint = endpoint
        self._timeout_s = connect_timeout_s
        self._tls = tls_context(_ca_bundle(variables)) if endpoint.scheme == "https" else None
        self._proxy = proxy_for(endpoint, variables)
        self._idle: deque[HTTPConnection] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def send(self, request: Request, timeout_s: float, deadline_s: float) -> Exchange:
        """`timeout_s` is for each wait; the body is read until `deadline_s`, in `perf_counter()`
        seconds. Raises UnreachableError."""
        try:
            if connection := self._take():
                with suppress(ConnectionError, ssl.SSLEOFError):
                    return self._exchange(connection, request, timeout_s, deadline_s)
            return self._exchange(self._connect(timeout_s), request, timeout_s, deadline_s)
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"no response: {reason(error)}") from error

    def put_back(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        if response.isclosed() and not response.will_close:
            self._idle.append(connection)
        else:
            response.close()
            connection.close()

    def _take(self) -> HTTPConnection | None:
        """An open connection that waits for a request. The youngest: the others may age, and be
        closed by the server."""
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not _is_readable(connection.sock):
                    return connection
                connection.close()
        return None

    def _connect(self, timeout_s: float) -> HTTPConnection:
        """Raises UnreachableError."""
        endpoint, proxy = self._endpoint, self._proxy
        host, port = (proxy.host, proxy.port) if proxy else (endpoint.host, endpoint.port)
        timeout_s = min(self._timeout_s, timeout_s)
        if self._tls:
            connection: HTTPConnection = HTTPSConnection(
                host, port, timeout=timeout_s, context=self._tls
            )
            if proxy:
                connection.set_tunnel(endpoint.host, endpoint.port, dict(proxy.headers))
        else:
            connection = HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.connect()
        except (OSError, HTTPException, UnicodeError) as error:  # UnicodeError: such as of a..b
            connection.close()
            way = "by a proxy, " * bool(proxy)
            text = f"Could not connect to {endpoint.url}: {way}{reason(error)}"
            raise UnreachableError(text) from error
        return connection

    def _exchange(
        self, connection: HTTPConnection, request: Request, timeout_s: float, deadline_s: float
    ) -> Exchange:
        method, path, headers, body = request
        if self._proxy and not self._tls:
            path = f"http://{self._endpoint.authority}{path}"
            headers = {**headers, **self._proxy.headers}
        try:
            connection.sock.settimeout(timeout_s)
            connection.sock.sendall(message(method, path, headers, body))
            return Exchange(self, connection, _response(connection.sock, method), deadline_s)
        except RemoteDisconnected as error:
            connection.close()
            if method == "GET":
                raise
            # The service may have done what it was asked for.
            raise UnreachableError("no response: the connection was closed") from error
        except BaseException:
            connection.close()
            raise


def message(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request in one piece: HTTPConnection writes the body by itself, in a TLS record of its own,
    and with its checks of each header takes a third of the CPU of a short call."""
    lines = [f"{method} {path} HTTP/1.1", "accept-encoding: identity"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method != "GET":
        lines.append(f"content-length: {len(body)}")
    head = "\r\n".join(lines)
    if head.count("\n") >= len(lines) or head.count("\r") >= len(lines):
        raise UnreachableError("a header of the request has the end of a line")
    return f"{head}\r\n\r\n".encode("latin-1") + body


def _response(sock: socket.socket, method: str) -> HTTPResponse:
    response = HTTPResponse(sock, method=method)
    try:
        response.begin()
    except BaseException:
        response.close()
        raise
    return response


def reason(error: Exception) -> str:
    """What is wrong, without anything that the other side has sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message} (AWS_CA_BUNDLE)"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, RemoteDisconnected):
        return "the connection was closed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    tunnel = re.match(r"Tunnel connection failed: \d{3}", str(error))
    return tunnel[0] if tunnel else type(error).__name__


@lru_cache
def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """Loading the certificates takes most of 10 ms. Raises AwsConfigError."""
    try:
        if Path(ca_bundle).is_dir() and ca_bundle:
            return ssl.create_default_context(capath=ca_bundle)
        return ssl.create_default_context(cafile=ca_bundle or None)
    except OSError as error:
        raise AwsConfigError("AWS_CA_BUNDLE: it can't be read, or has no certificates") from error


def _ca_bundle(variables: Mapping[str, str]) -> str:
    return variables.get("AWS_CA_BUNDLE") or variables.get("REQUESTS_CA_BUNDLE", "")


def _is_readable(sock: socket.socket) -> bool:
    """Whether the server closed it, or sent what nobody asked for. `select` can't take a file
    descriptor beyond 1,023."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _close_all(connections: "deque[HTTPConnection]") -> None:
    for connection in connections:
        connection.close()
