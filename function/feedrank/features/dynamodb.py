"""Packed rows in a DynamoDB table.

An item of the table is one row: its key `k` is `u#` or `i#` and the id (of a text id its 63-bit
key), `v` the packed row, `t` the time of the last event in it, in Unix seconds, and `e`, where
there is one, the time at which it expires. A user's row has all of the user's pairs beside it, `p`.

Here a row's times are read; the packed bytes are for `feedrank.features.packed_rows`.
"""

import time
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from feedrank.aws.client import Limits
from feedrank.aws.errors import UnreachableError
from feedrank.aws.services import DYNAMODB, JsonClient
from feedrank.features.batch_get import MAX_KEYS, Item, TableKeys, batch_get
from feedrank.features.stored_rows import DAMAGED, StoredRow, item_key, user_key

KEY, ROW, PAIRS, TIME, EXPIRY = "k", "v", "p", "t", "e"
CONNECT_TIMEOUT_S = 1.0  # a request's budget is far shorter: this is for the first connection
READ_TIMEOUT_S = 1.0
TRIES = 2
ABSENT = object()  # in place of a value


class DynamoTable:
    """Safe for threads."""

    max_keys = MAX_KEYS

    def __init__(self, table: str, variables: Mapping[str, str] | None = None) -> None:
        """Raises AwsConfigError."""
        self._table = table
        self._variables = variables
        self.connect()

    def connect(self) -> None:
        limits = Limits(CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TRIES)
        self._client = JsonClient(DYNAMODB, limits, variables=self._variables)

    def read_user(self, user: int, deadline_s: float) -> StoredRow | None:
        key = user_key(user)
        content = {"TableName": self._table, "Key": {KEY: {"S": key}}}
        response = _mapping(self._client.call("GetItem", content, deadline_s))
        if "Item" not in response:
            return None
        item = _mapping(response["Item"])
        if _key_of(item) != key:
            raise UnreachableError("the response has the row of another key")
        return stored_row(item)

    def read_items(
        self, items: Sequence[int], deadline_s: float, found: dict[int, StoredRow | None]
    ) -> None:
        """At most `max_keys` of them, all different. `found` gets each answer as it comes."""
        by_key = {item_key(item): item for item in items}

        def take(_table: str, rows: Mapping[str, Item | None]) -> None:
            for key, row in rows.items():
                found[by_key[key]] = stored_row(row) if row else None

        batch_get(self._client, [TableKeys(self._table, KEY, [*by_key])], deadline_s, take)


def _key_of(item: Item) -> str:
    try:
        return str(item[KEY]["S"])
    except (KeyError, TypeError):
        return ""


def stored_row(item: Item) -> StoredRow | None:
    """None where it has expired: DynamoDB deletes it some days later."""
    if EXPIRY in item and _number(item[EXPIRY]) <= time.time():
        return None
    row, pairs = item.get(ROW, ABSENT), item.get(PAIRS, ABSENT)
    return StoredRow(_bytes(row), _number(item.get(TIME)), _bytes(pairs))


def _bytes(value: Any) -> bytes:  # noqa: ANN401 JSON
    """DAMAGED where it is no Binary."""
    if value is ABSENT:
        return b""
    try:
        return a2b_base64(value["B"], strict_mode=True) or DAMAGED
    except (KeyError, TypeError, ValueError):
        return DAMAGED


def _number(value: Any) -> float:  # noqa: ANN401 JSON
    """NaN where it is none."""
    try:
        return float(value["N"])
    except (KeyError, TypeError, ValueError):
        return nan


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnreachableError("the response is not one of DynamoDB's")
    return value
