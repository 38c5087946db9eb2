"""The rows and the counts that they are made of, in DynamoDB, with the ids of the events in them.

A few dozen events are one transaction: each event's id, which must not be there yet, and each row
that they change, which must still be the one that was read. So an event counts once in its user's
row and once in its item's, or in neither.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import random
from time import sleep
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from feedmodel.demo.counted_rows import CountedRows
from feedmodel.demo.counts import Counts, Event, ItemCounts, UserCounts

# As feedrank.features.dynamodb has them; the serving code reads no other.
KEY, ROW, PAIRS, TIME, EXPIRY = "k", "v", "p", "t", "e"
COUNTS = "n"
MAX_KEYS = 100  # of a BatchGetItem and of a TransactWriteItems
TRIES = 8
PAUSE_S = 0.05  # at most, before the second try; doubles
Item = Mapping[str, Any]
OfCounts = TypeVar("OfCounts", bound=Counts)


class BusyError(Exception):
    """Others change the same rows, or DynamoDB throttles: later it may go."""


class ForeignRowError(Exception):
    """A row that something else wrote: it has no counts to go on with."""


@dataclass(frozen=True, slots=True)
class Tables:
    rows: str
    events: str  # their ids
    remember_days: float  # an event's id


@dataclass(slots=True)
class Changes:
    """Of one transaction."""

    ids: list[str]
    users: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    items: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))


class Store:
    def __init__(self, client: Any, tables: Tables, rows: CountedRows) -> None:  # noqa: ANN401 boto3's
        self._client = client
        self._tables = tables
        self._rows = rows

    def blocks(self, events: Sequence[Event]) -> Iterator[list[Event]]:
        """The events, which have different ids, in blocks of a transaction each."""
        block: list[Event] = []
        keys: set[tuple[str, str]] = set()
        for event in events:
            more = {("e", event.id), *(("r", key) for key in self._keys(event))}
            if len(keys | more) > MAX_KEYS:
                yield block
                block, keys = [], set()
            block.append(event)
            keys |= more
        if block:
            yield block

    def apply(self, events: Sequence[Event]) -> int:
        """How many of a block were new. Raises BusyError, ForeignRowError, or what boto3 raises."""
        for attempt in range(TRIES):
            known, stored = self._read(events)
            new = [event for event in events if event.id not in known]
            if not new:
                return 0
            try:
                self._write(self._changes(new), stored)
            except ClientError as error:
                if not _may_go(error):
                    raise
                _pause(attempt)
            else:
                return len(new)
        raise BusyError(f"{TRIES} transactions were cancelled")

    def _keys(self, event: Event) -> list[str]:
        users = [] if event.kind == "created" else [f"u#{event.user}"]
        return [*users, f"i#{event.item}"] if self._rows.has_items else users

    def _read(self, events: Sequence[Event]) -> tuple[set[str], dict[str, Item]]:
        """The ids of those that are in the rows already, and the rows."""
        keys = {
            self._tables.events: dict.fromkeys(event.id for event in events),
            self._tables.rows: dict.fromkeys(key for event in events for key in self._keys(event)),
        }
        request: Any = {
            table: {"Keys": [{KEY: {"S": key}} for key in keys[table]], "ConsistentRead": True}
            for table in keys
            if keys[table]
        }
        found: dict[str, dict[str, Item]] = {table: {} for table in keys}
        for attempt in range(TRIES):
            response = self._client.batch_get_item(RequestItems=request)
            for table, items in response["Responses"].items():
                found[table] |= {item[KEY]["S"]: item for item in items}
            request = response.get("UnprocessedKeys")
            if not request:
                return {*found[self._tables.events]}, found[self._tables.rows]
            _pause(attempt)
        raise BusyError("keys were left unprocessed")

    def _changes(self, events: Sequence[Event]) -> Changes:
        changes = Changes([event.id for event in events])
        for event in events:
            for key in self._keys(event):
                of_kind = changes.users if key.startswith("u") else changes.items
                of_kind[key].append(event)
        return changes

    def _write(self, changes: Changes, stored: Mapping[str, Item]) -> None:
        expiry = {"N": str(int(time.time() + self._tables.remember_days * 86_400))}
        ids = [
            {
                "TableName": self._tables.events,
                "Item": {KEY: {"S": id_}, EXPIRY: expiry},
                "ConditionExpression": f"attribute_not_exists({KEY})",
            }
            for id_ in changes.ids
        ]
        puts = [
            *ids,
            *self._user_puts(changes.users, stored),
            *self._item_puts(changes.items, stored),
        ]
        self._client.transact_write_items(TransactItems=[{"Put": put} for put in puts])

    def _user_puts(
        self, users: Mapping[str, Sequence[Event]], stored: Mapping[str, Item]
    ) -> Iterator[Any]:
        counts = [_counts(UserCounts(), users[key], stored.get(key)) for key in users]
        for key, of_user, row in zip(users, counts, self._rows.users(counts), strict=True):
            put = self._put(key, of_user, row, users[key], stored.get(key))
            seen = [event.item for event in users[key] if event.kind == "impression"]
            if self._rows.has_pairs:
                packed = stored.get(key, {}).get(PAIRS, {}).get("B", b"")
                if packed or seen:
                    put["Item"][PAIRS] = {"B": self._rows.with_pairs(packed, seen)}
            yield put

    def _item_puts(
        self, items: Mapping[str, Sequence[Event]], stored: Mapping[str, Item]
    ) -> Iterator[Any]:
        counts = [_counts(ItemCounts(), items[key], stored.get(key)) for key in items]
        for key, of_item, row in zip(items, counts, self._rows.items(counts), strict=True):
            yield self._put(key, of_item, row, items[key], stored.get(key))

    def _put(
        self, key: str, counts: Counts, row: bytes, events: Sequence[Event], old: Item | None
    ) -> dict[str, Any]:
        """The row's time is that of its newest event, and never goes back."""
        time_s = max(event.time_s for event in events)
        condition: dict[str, Any] = {"ConditionExpression": f"attribute_not_exists({KEY})"}
        if old is not None:
            time_s = max(time_s, float(old[TIME]["N"]))
            condition = {
                "ConditionExpression": f"{COUNTS} = :n AND {TIME} = :t",
                "ExpressionAttributeValues": {":n": old[COUNTS], ":t": old[TIME]},
            }
        item = {
            KEY: {"S": key},
            TIME: {"N": repr(time_s)},
            ROW: {"B": row},
            COUNTS: {"S": counts.to_text()},
        }
        return {"TableName": self._tables.rows, "Item": item, **condition}


def _counts(counts: OfCounts, events: Sequence[Event], stored: Item | None) -> OfCounts:
    """The stored ones, or `counts`, with the events."""
    if stored is not None:
        if COUNTS not in stored:
            raise ForeignRowError("a row has no counts: the stream needs a table of its own")
        counts = type(counts).from_text(stored[COUNTS]["S"])
    for event in events:
        counts.add(event)
    return counts


def _may_go(error: ClientError) -> bool:
    """Whether others had changed a row, so that another try is of use. One isn't where a row is too
    large."""
    reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", ())}
    is_cancelled = error.response["Error"]["Code"] == "TransactionCanceledException"
    return is_cancelled and not reasons & {"ItemCollectionSizeLimitExceeded", "ValidationError"}


def _pause(attempt: int) -> None:
    sleep(random() * PAUSE_S * 2**attempt)  # noqa: S311
