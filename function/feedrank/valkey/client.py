"""Commands to the servers of Valkey or Redis that have their keys: one server, or a cluster.

https://valkey.io/topics/cluster-spec/
"""

from binascii import crc_hqx
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import starmap
from math import inf
from typing import Any, NamedTuple

from feedrank.valkey.connection import (
    NO_REPLY,
    Address,
    Argument,
    Connection,
    LostError,
    RefusedError,
    Reply,
    Server,
    ValkeyError,
)

SLOTS = 16_384
MAX_ROUNDS = 3  # of a key that moves to another server meanwhile


class Command(NamedTuple):
    """Goes to the server of its key."""

    key: str
    arguments: Sequence[Argument]


class _Task(NamedTuple):
    at: int  # of its command
    address: Address
    commands: Sequence[Sequence[Argument]]  # its own is the last


class Client:
    """Safe for threads: a call has connections of its own, which later ones take over."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: defaultdict[Address, deque[Connection]] = defaultdict(deque)
        self._addresses: Sequence[Address] = ()  # by slot; none yet

    def reset(self) -> None:
        """Closes what nobody uses. The next call opens connections, and asks for the servers."""
        idle, self._idle, self._addresses = self._idle, defaultdict(deque), ()
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def get(self, keys: Sequence[str], deadline_s: float = inf) -> list[Reply]:
        """The value of each key, None where there is none. Raises ValkeyError."""
        addresses = self._addresses or self._find_servers(deadline_s)
        groups: dict[int, list[int]] = {0: [*range(len(keys))]}
        if len(addresses) == SLOTS:  # a command takes keys of one slot only
            groups = defaultdict(list)
            for at, key in enumerate(keys):
                groups[slot_of(key)].append(at)
        commands = [
            Command(keys[group[0]], ["MGET", *[keys[at] for at in group]])
            for group in groups.values()
        ]
        values: list[Reply] = [None] * len(keys)
        for group, reply in zip(groups.values(), self.run(commands, deadline_s), strict=True):
            of_group = reply if isinstance(reply, list) else [reply] * len(group)
            if len(of_group) != len(group):
                raise ValkeyError(NO_REPLY)
            for at, value in zip(group, of_group, strict=True):
                values[at] = value
        return values

    def run(self, commands: Sequence[Command], deadline_s: float = inf) -> list[Reply]:
        """The reply to each; of one that was refused, the error. `deadline_s` is in
        `perf_counter()` seconds. Raises ValkeyError."""
        replies: list[Reply] = [None] * len(commands)
        addresses = self._addresses or self._find_servers(deadline_s)
        is_cluster = len(addresses) == SLOTS
        tasks = [
            _Task(at, addresses[slot_of(key)] if is_cluster else addresses[0], [arguments])
            for at, (key, arguments) in enumerate(commands)
        ]
        for _ in range(MAX_ROUNDS):
            outcomes = self._exchange(tasks, deadline_s)
            for task, reply in zip(tasks, outcomes, strict=True):
                replies[task.at] = reply
            moves = starmap(self._moved, zip(tasks, outcomes, strict=True))
            tasks = [task for task in moves if task]
            if not tasks:
                break
        return replies

    def _find_servers(self, deadline_s: float) -> Sequence[Address]:
        """By slot; one alone without a cluster, and where the user may not ask."""
        first = self._server.address
        (reply,) = self._exchange_with({first: [["CLUSTER", "SLOTS"]]}, deadline_s)[first]
        self._addresses = _by_slot(reply, first) if isinstance(reply, list) else [first]
        return self._addresses

    def _moved(self, task: _Task, reply: Reply) -> _Task | None:
        """Where the key has gone: `MOVED 3999 host:port` for good, `ASK ...` for one command."""
        if not isinstance(reply, RefusedError) or reply.code not in {"MOVED", "ASK"}:
            return None
        host, _, port = reply.detail.rpartition(" ")[2].rpartition(":")
        if not port.isdigit():
            return None
        address = Address(host or task.address.host, int(port))
        if reply.code == "ASK":
            return _Task(task.at, address, [["ASKING"], task.commands[-1]])
        self._addresses = ()
        return _Task(task.at, address, task.commands[-1:])

    def _exchange(self, tasks: Sequence[_Task], deadline_s: float) -> list[Reply]:
        """The reply to each task's own command."""
        commands: dict[Address, list[Sequence[Argument]]] = defaultdict(list)
        places = []
        for task in tasks:
            commands[task.address] += task.commands
            places.append((task.address, len(commands[task.address]) - 1))
        replies = self._exchange_with(commands, deadline_s)
        return [replies[address][at] for address, at in places]

    def _exchange_with(
        self, commands: Mapping[Address, Sequence[Sequence[Argument]]], deadline_s: float
    ) -> dict[Address, list[Reply]]:
        """All servers work at the same time."""
        replies: dict[Address, list[Reply]] = {}
        waiting: dict[Address, Connection | None] = {}
        try:
            for address, own in commands.items():
                waiting[address] = self._sent_on_idle(address, own, deadline_s)
            for address, own in commands.items():
                if connection := waiting[address]:
                    with suppress(LostError):  # it was closed while nobody used it
                        replies[address] = connection.receive(len(own), deadline_s)
                        self._idle[address].append(connection)
                        waiting[address] = None
                        continue
                replies[address] = self._exchange_anew(address, own, deadline_s)
        finally:
            for connection in filter(None, waiting.values()):
                connection.close()  # a reply may still come
        return replies

    def _sent_on_idle(
        self, address: Address, commands: Sequence[Sequence[Argument]], deadline_s: float
    ) -> Connection | None:
        """None where there is no such connection any more."""
        try:
            connection = self._idle[address].pop()
        except IndexError:
            return None
        try:
            connection.send(commands, deadline_s)
        except ValkeyError as error:
            connection.close()
            if isinstance(error, LostError):
                return None
            raise
        return connection

    def _exchange_anew(
        self, address: Address, commands: Sequence[Sequence[Argument]], deadline_s: float
    ) -> list[Reply]:
        connection = Connection(address, self._server, deadline_s)
        try:
            connection.send(commands, deadline_s)
            replies = connection.receive(len(commands), deadline_s)
        except BaseException:
            connection.close()
            raise
        self._idle[address].append(connection)
        return replies


def slot_of(key: str) -> int:
    """Of the part in braces, if the key has one: such keys have one slot."""
    _, brace, rest = key.partition("{")
    tag, end, _ = rest.partition("}")
    return crc_hqx((tag if brace and end and tag else key).encode(), 0) % SLOTS


def _by_slot(ranges: list[Any], first: Address) -> Sequence[Address]:
    """Of each range: first and last slot, and the primary server. Raises ValkeyError."""
    addresses = [first] * SLOTS
    try:
        for start, end, (host, port, *_), *_ in ranges:
            address = Address(host.decode() if host else first.host, port)
            addresses[start : end + 1] = [address] * (end + 1 - start)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValkeyError(NO_REPLY) from error
    return addresses
