"""Packed rows in Valkey or Redis, as an operator writes and reads them."""

import os
from collections.abc import Mapping, Sequence

from feedops.errors import OperationError
from feedops.features.rows import WrittenRow
from feedrank.errors import FeedrankError
from feedrank.features.stored_rows import StoredRow
from feedrank.features.stores import user_and_password
from feedrank.features.valkey_rows import TIME, pack, unpack
from feedrank.valkey.client import Client, Command
from feedrank.valkey.connection import RefusedError, Reply, server_of

BLOCK = 1_000  # keys of one round trip
# The row's time comes first in a value, as text: see `valkey_rows`.
SET_IF_NEWER = """
local old = tonumber(redis.call('GETRANGE', KEYS[1], 0, 16))
if old and old >= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], 'EXAT', ARGV[3]) end
return 1
"""


class ValkeyStore:
    """A `RowStore`. FEATURES_PASSWORD or FEATURES_SECRET have the password, as for the function."""

    def __init__(self, uri: str, variables: Mapping[str, str] = os.environ) -> None:
        """Raises OperationError."""
        password, secret = (
            variables.get("FEATURES_PASSWORD", ""),
            variables.get("FEATURES_SECRET", ""),
        )
        try:
            server = server_of(uri, *user_and_password(password, secret))
        except FeedrankError as error:
            raise OperationError(str(error)) from error
        self._prefix = server.prefix
        self._client = Client(server)

    def write(self, row: WrittenRow, time_s: float, expires_s: float | None) -> bool:
        key = self._prefix + row.key
        value = pack(key, row.row, time_s, row.pairs)
        expiry = "" if expires_s is None else str(int(expires_s))
        script = ("EVAL", SET_IF_NEWER, "1", key, value, format(time_s, TIME), expiry)
        (reply,) = self._run([Command(key, script)])
        return reply == 1

    def read(self, keys: Sequence[str], *, expired: bool = False) -> dict[str, StoredRow]:  # noqa: ARG002
        rows: dict[str, StoredRow] = {}
        for start in range(0, len(keys), BLOCK):
            block = keys[start : start + BLOCK]
            names = [self._prefix + key for key in block]
            replies = self._run([Command(name, ("GET", name)) for name in names])
            for key, name, value in zip(block, names, replies, strict=True):
                if isinstance(value, bytes):
                    rows[key] = unpack(name, value)
        return rows

    def _run(self, commands: Sequence[Command]) -> list[Reply]:
        try:
            replies = self._client.run(commands)
            for reply in replies:
                if isinstance(reply, RefusedError):
                    raise reply
        except FeedrankError as error:
            raise OperationError(str(error)) from error
        return replies
