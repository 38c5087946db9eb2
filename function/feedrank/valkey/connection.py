"""A connection to a server of Valkey or Redis: commands and their replies within a deadline.

redis-py takes 80 ms to import, more than a cold start may grow by; what a request needs of the
protocol, RESP2, is a page. https://valkey.io/topics/protocol/
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from feedrank.errors import FeedrankError, SettingsError

ENCRYPTED = "valkeys"
PORT = 6_379
CONNECT_S = 1.0
MAX_REPLIES_BYTES = 64_000_000  # of one command after another: far more than a hundred rows
CHUNK_BYTES = 65_536
HINTS = {
    "NOAUTH": ": set FEATURES_SECRET",
    "WRONGPASS": ": it knows no such user, or another password than FEATURES_SECRET has",
    "NOPERM": ": the user may not GET these keys",
    "WRONGTYPE": ": another application has keys of the same names; set a prefix",
}

NO_REPLY = "the response is not one of Valkey's"
Argument = str | bytes
Reply: TypeAlias = "bytes | int | list[Reply] | RefusedError | None"


class ValkeyError(FeedrankError):
    """A call that failed. The text has no key, no value and no password."""


class RefusedError(ValkeyError):
    """An error of the server. Only its first word is shown: the rest may repeat arguments."""

    def __init__(self, reply: str) -> None:
        self.code, _, self.detail = reply.partition(" ")
        super().__init__(f"Valkey responds with {self.code}{HINTS.get(self.code, '')}")


class LostError(ValkeyError):
    """There is no connection, or no more."""


class Address(NamedTuple):
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Server:
    """`password` is empty where the server wants none, `user` for its default one."""

    address: Address
    database: int = 0
    prefix: str = ""  # of every key
    is_encrypted: bool = False
    user: str = ""
    password: str = field(default="", repr=False)


def server_of(uri: str, user: str = "", password: str = "") -> Server:
    """Of valkey[s]://host[:port][/database][?prefix=TEXT]. Raises SettingsError."""
    parts = urlsplit(uri)
    try:
        port, database = parts.port or PORT, int(parts.path.strip("/") or 0)
    except ValueError:
        port, database = 0, -1
    if not parts.hostname or parts.username or parts.password or database < 0:
        raise SettingsError(
            "FEATURES_URI: must be valkey://host:port/database, or valkeys:// for TLS; a password "
            "belongs into FEATURES_SECRET"
        )
    prefix = parts.query.removeprefix("prefix=")
    address = Address(parts.hostname, port)
    return Server(address, database, prefix, parts.scheme == ENCRYPTED, user, password)


class Connection:
    """Commands and their replies in order. Whoever meets an error closes it: a late reply would
    pass for that of the next command."""

    def __init__(self, address: Address, server: Server, deadline_s: float) -> None:
        """`deadline_s` is in `perf_counter()` seconds. Raises ValkeyError."""
        self._received, self._at = bytearray(), 0
        with _errors():
            self._socket = _socket(address, deadline_s, is_encrypted=server.is_encrypted)
        try:
            if server.password:
                who = [server.user, server.password] if server.user else [server.password]
                self.call("AUTH", *who, deadline_s=deadline_s)
            if server.database:
                self.call("SELECT", str(server.database), deadline_s=deadline_s)
        except BaseException:
            self.close()
            raise

    def call(self, *command: Argument, deadline_s: float) -> Reply:
        """Raises RefusedError, ValkeyError."""
        self.send([command], deadline_s)
        (reply,) = self.receive(1, deadline_s)
        if isinstance(reply, RefusedError):
            raise reply
        return reply

    def send(self, commands: Sequence[Sequence[Argument]], deadline_s: float) -> None:
        with _errors():
            self._socket.settimeout(_left_s(deadline_s))
            self._socket.sendall(b"".join(map(_encoded, commands)))

    def receive(self, count: int, deadline_s: float) -> list[Reply]:
        """That many replies. A command that was refused has its error there."""
        with _errors():
            replies = [self._reply(deadline_s) for _ in range(count)]
        if self._at < len(self._received):
            raise ValkeyError("the server has sent more than was asked for")
        self._received, self._at = bytearray(), 0
        return replies

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        """Of a client that nobody has any more."""
        with suppress(AttributeError):  # it was never connected
            self._socket.close()

    def _reply(self, deadline_s: float) -> Reply:
        line = self._line(deadline_s)
        kind, text = line[:1], line[1:]
        if kind == b"$":
            return self._bulk(int(text), deadline_s)
        if kind == b"*":
            return [self._reply(deadline_s) for _ in range(int(text))]
        if kind == b":":
            return int(text)
        if kind == b"-":
            return RefusedError(text.decode(errors="replace"))
        if kind == b"+":
            return text
        raise ValueError

    def _line(self, deadline_s: float) -> bytes:
        while (end := self._received.find(b"\r\n", self._at)) < 0:
            self._receive_more(deadline_s)
        line = bytes(self._received[self._at : end])
        self._at = end + 2
        return line

    def _bulk(self, size: int, deadline_s: float) -> bytes | None:
        if size < 0:
            return None
        start, end = self._at, self._at + size
        while len(self._received) < end + 2:
            self._receive_more(deadline_s)
        self._at = end + 2
        if self._received[end : self._at] != b"\r\n":
            raise ValueError
        return bytes(self._received[start:end])

    def _receive_more(self, deadline_s: float) -> None:
        self._socket.settimeout(_left_s(deadline_s))
        data = self._socket.recv(CHUNK_BYTES)
        if not data:
            raise ConnectionResetError("closed by the server")
        self._received += data
        if len(self._received) > MAX_REPLIES_BYTES:
            raise ValueError


@contextmanager
def _errors() -> Iterator[None]:
    """What a socket or a reply that makes no sense raises, as a ValkeyError."""
    try:
        yield
    except TimeoutError as error:
        raise ValkeyError("Valkey doesn't respond in time") from error
    except OSError as error:  # of TLS and of the host's name too; no text has a key
        raise LostError(f"no connection to Valkey: {error.strerror or error}") from error
    except ValueError as error:
        raise ValkeyError(NO_REPLY) from error


def _socket(address: Address, deadline_s: float, *, is_encrypted: bool) -> socket.socket:
    plain = socket.create_connection(address, min(CONNECT_S, _left_s(deadline_s) or CONNECT_S))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not is_encrypted:
        return plain
    import ssl

    return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)


def _left_s(deadline_s: float) -> float | None:
    """None without a deadline. Raises TimeoutError where none is left."""
    if deadline_s == inf:
        return None
    left_s = deadline_s - perf_counter()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _encoded(command: Sequence[Argument]) -> bytes:
    data = [each.encode() if isinstance(each, str) else each for each in command]
    parts = [b"$%d\r\n%b\r\n" % (len(each), each) for each in data]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))
