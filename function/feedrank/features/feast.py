"""A Feast online store in DynamoDB, read without Feast's SDK.

https://github.com/feast-dev/feast/blob/v0.66.0/sdk/python/feast/infra/online_stores/dynamodb.py

A feature view is a table, `{project}.{view}`. A row has the key `entity_id`, a hash of the join
key's name and an id; `event_ts`, a time as text; and `values`, each feature in protobuf. A row that
is older than its view's time to live is as if it were not there, as in Feast's training data (the
SDK serves it: its online stores don't look at the time). An id that no view has a row of is
unknown; where some views have one, the features of the others are nulls.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import isnan, nan
from struct import pack
from typing import Any

import mmh3

from feedrank.aws.client import Limits
from feedrank.aws.services import DYNAMODB, JsonClient
from feedrank.errors import SpecError
from feedrank.features.batch_get import MAX_KEYS, Item, TableKeys, batch_get
from feedrank.features.dynamodb import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TRIES
from feedrank.features.feast_rows import NO_ROW, Values
from feedrank.features.feast_views import FeastView, columns_of, views_of
from feedrank.features.live_rows import MAX_AHEAD_S
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.stored_rows import StoredRow

KEY, TIME, VALUES = "entity_id", "event_ts", "values"
MAX_PROJECTED = 200  # features: an expression has at most 4 KB
NAME_LENGTHS = range(3, 256)  # of DynamoDB's tables
STRING, INT32, INT64 = 2, 3, 4  # Feast's `ValueType`
Id = int | str
# The values, and the time of the event in Unix seconds, NaN where there is none.
ViewRow = tuple[Values, float]


class ViewTable:
    """How one view's rows are asked for, and what is in them."""

    def __init__(self, project: str, view: FeastView, names: Sequence[str]) -> None:
        """`names` are the features to read. Raises SpecError."""
        self.name = f"{project}.{view.name}"
        if len(self.name) not in NAME_LENGTHS:
            raise SpecError(f"feature spec: feast: {self.name!r} can't be a table of DynamoDB")
        self._ttl_s = view.ttl_s
        self._projection = _projection(names)
        self._key_of = KEYS[view.join_key_type]
        name = view.join_key.encode()
        self._prefix = pack("<III", 1, STRING, len(name)) + name

    def keys(self, entity_ids: Sequence[str]) -> TableKeys:
        return TableKeys(self.name, KEY, entity_ids, self._projection)

    def entity_ids(self, ids: Sequence[Id]) -> dict[str, Id]:
        """The ids by the keys of their rows, without those that the join key's type can't hold."""
        key_of, prefix, digest = self._key_of, self._prefix, mmh3.hash_bytes
        keys = [(key_of(id_), id_) for id_ in ids]
        return {digest(prefix + key).hex(): id_ for key, id_ in keys if key}

    def row(self, item: Item | None, now_s: float) -> ViewRow | None:
        """None where there is none, or it has expired."""
        if item is None:
            return None
        time_s = _time_of(item)
        age_s = now_s - time_s
        if self._ttl_s and age_s > self._ttl_s:
            return None
        if age_s < -MAX_AHEAD_S:  # beside an older row nobody would see it
            time_s = nan
        values = item.get(VALUES)
        return (values.get("M", {}) if isinstance(values, dict) else {}), time_s


class ViewJoin:
    """Puts the rows of ids together from several views, as each table's come."""

    def __init__(
        self,
        tables: Sequence[ViewTable],
        ids: Sequence[Id],
        found: dict[Any, StoredRow | None],
    ) -> None:
        self._now_s = time.time()
        self._tables = {table.name: table for table in tables}
        self._keys = {table.name: table.entity_ids(ids) for table in tables}
        # By id, of each table: an id that its keys can't hold has no row.
        self._rows: dict[str, dict[Id, ViewRow | None]] = {
            name: dict.fromkeys({*ids} - {*keys.values()}) for name, keys in self._keys.items()
        }
        self._found = found
        self._complete(ids)

    def requests(self) -> list[TableKeys]:
        keys = self._keys.items()
        return [self._tables[name].keys([*of_table]) for name, of_table in keys if of_table]

    def take(self, name: str, items: Mapping[str, Item | None]) -> None:
        row_of, keys, now_s = self._tables[name].row, self._keys[name], self._now_s
        rows = {keys[key]: row_of(item, now_s) for key, item in items.items()}
        self._rows[name] |= rows
        self._complete(rows)

    def _complete(self, ids: Iterable[Id]) -> None:
        """Those that every table has answered for."""
        tables = self._rows.values()
        for id_ in {*ids}.intersection(*tables):
            self._found[id_] = _stored_row([rows[id_] for rows in tables])


class FeastTables:
    """Safe for threads."""

    def __init__(
        self,
        project: str,
        spec: FeatureSpec,
        variables: Mapping[str, str] | None = None,
        *,
        reads_items: bool,
    ) -> None:
        """Raises SpecError, AwsConfigError."""
        self._users = _tables(project, spec, "user")
        self._items = _tables(project, spec, "item") if reads_items else []
        self.max_keys = MAX_KEYS // max(len(self._items), 1)
        self._variables = variables
        self.connect()

    def connect(self) -> None:
        limits = Limits(CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TRIES)
        self._client = JsonClient(DYNAMODB, limits, variables=self._variables)

    def read_user(self, user: Id, deadline_s: float) -> StoredRow | None:
        found: dict[Id, StoredRow | None] = {}
        self._read(self._users, [user], deadline_s, found)
        return found[user]

    def read_items(
        self, items: Sequence[Id], deadline_s: float, found: dict[Any, StoredRow | None]
    ) -> None:
        """At most `max_keys` of them, all different. `found` gets each answer as it comes."""
        self._read(self._items, items, deadline_s, found)

    def _read(
        self,
        tables: Sequence[ViewTable],
        ids: Sequence[Id],
        deadline_s: float,
        found: dict[Any, StoredRow | None],
    ) -> None:
        join = ViewJoin(tables, ids, found)
        if requests := join.requests():
            batch_get(self._client, requests, deadline_s, join.take)


def _tables(project: str, spec: FeatureSpec, source: Source) -> list[ViewTable]:
    views = views_of(columns_of(spec, source))
    return [ViewTable(project, view, names) for view, names in views.items()]


def _projection(names: Sequence[str]) -> Mapping[str, Any]:
    """For these features alone, as the SDK asks."""
    if len(names) > MAX_PROJECTED:
        return {}
    places = [f"#{at}" for at in range(len(names))]
    return {
        "ProjectionExpression": ",".join(["#k", "#t", *(f"#v.{place}" for place in places)]),
        "ExpressionAttributeNames": {
            "#k": KEY,
            "#t": TIME,
            "#v": VALUES,
            **dict(zip(places, names, strict=True)),
        },
    }


def _stored_row(rows: Sequence[ViewRow | None]) -> StoredRow | None:
    """As old as the oldest of its views."""
    if len(rows) == 1:
        return StoredRow((rows[0][0],), rows[0][1]) if rows[0] else None
    times_s = [row[1] for row in rows if row]
    if not times_s:
        return None
    time_s = nan if any(map(isnan, times_s)) else min(times_s)
    return StoredRow(tuple([row[0] if row else NO_ROW for row in rows]), time_s)


def _time_of(item: Item) -> float:
    try:
        at = datetime.fromisoformat(item[TIME]["S"])
    except (LookupError, TypeError, ValueError):
        return nan
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


# An id within a key, as Feast's version 3 has it:
# https://github.com/feast-dev/feast/blob/v0.66.0/sdk/python/feast/infra/key_encoding_utils.py


def _text_key(id_: Id) -> bytes:
    text = str(id_).encode()
    return pack("<II", STRING, len(text)) + text


def _int64_key(id_: Id) -> bytes:
    return pack("<IIq", INT64, 8, id_)


def _int32_key(id_: Id) -> bytes:
    """Empty where no such entity can be."""
    return pack("<IIi", INT32, 4, id_) if int(id_) < 1 << 31 else b""


KEYS = {"string": _text_key, "int64": _int64_key, "int32": _int32_key}
