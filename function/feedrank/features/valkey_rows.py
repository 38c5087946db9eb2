"""Packed rows in Valkey or Redis.

A key is the prefix, `u#` or `i#`, and the id (of a text id its 63-bit key). Its value is the time
of the last event in the row, as text that sorts; the CRC-32 of the key, so that no row passes for
another's; the row's length; the packed row; and of a user all packed pairs. A key expires by
itself.
"""

import struct
from collections.abc import Sequence
from math import nan
from zlib import crc32

from feedrank.features.stored_rows import DAMAGED, StoredRow, item_key, user_key
from feedrank.valkey.client import Client
from feedrank.valkey.connection import NO_REPLY, RefusedError, Reply, Server, ValkeyError

MAX_KEYS = 1_000
TIME = "017.6f"  # Unix seconds, of years 1970 to 2286
HEAD = struct.Struct("<17sII")  # time, the key's CRC-32, the row's length


class ValkeyRows:
    """Safe for threads. A `RowReader`."""

    max_keys = MAX_KEYS

    def __init__(self, server: Server) -> None:
        self._prefix = server.prefix
        self._client = Client(server)

    def connect(self) -> None:
        self._client.reset()

    def read_user(self, user: int, deadline_s: float) -> StoredRow | None:
        (row,) = self._read([self._prefix + user_key(user)], deadline_s)
        if isinstance(row, RefusedError):
            raise row
        return row

    def read_items(
        self, items: Sequence[int], deadline_s: float, found: dict[int, StoredRow | None]
    ) -> None:
        """Raises RefusedError where a server refuses some, ValkeyError."""
        rows = self._read([self._prefix + item_key(item) for item in items], deadline_s)
        refusal = None
        for item, row in zip(items, rows, strict=True):
            if isinstance(row, RefusedError):
                refusal = row
            else:
                found[item] = row
        if refusal:
            raise refusal

    def _read(
        self, keys: Sequence[str], deadline_s: float
    ) -> list[StoredRow | RefusedError | None]:
        return [
            unpack(key, value) if isinstance(value, bytes) else _no_row(value)
            for key, value in zip(keys, self._client.get(keys, deadline_s), strict=True)
        ]


def _no_row(reply: Reply) -> RefusedError | None:
    if reply is None or isinstance(reply, RefusedError):
        return reply
    raise ValkeyError(NO_REPLY)


def pack(key: str, row: bytes, time_s: float, pairs: bytes = b"") -> bytes:
    """The value of a key."""
    time = format(time_s, TIME).encode()
    return HEAD.pack(time, crc32(key.encode()), len(row)) + row + pairs


def unpack(key: str, value: bytes) -> StoredRow:
    """A value that isn't one of this key has a DAMAGED row."""
    try:
        time, check, size = HEAD.unpack_from(value)
        time_s = float(time)
    except (struct.error, ValueError):
        return StoredRow(DAMAGED, nan)
    end = HEAD.size + size
    if check != crc32(key.encode()) or end > len(value):
        return StoredRow(DAMAGED, nan)
    return StoredRow(value[HEAD.size : end], time_s, value[end:])
