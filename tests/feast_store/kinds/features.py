"""Views of every kind of number that Feast has, of each kind of join key.
`tests/feast_store/record.py` writes their tables."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import (
    Array,
    Bool,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)

DATA = Path(__file__).parent / "data"
KINDS = {
    "f32": Float32,
    "f64": Float64,
    "i32": Int32,
    "i64": Int64,
    "flag": Bool,
    "made": UnixTimestamp,
}


def source(name: str) -> FileSource:
    return FileSource(path=str(DATA / f"{name}.parquet"), timestamp_field="event_timestamp")


def fields(kinds: dict[str, object]) -> list[Field]:
    return [Field(name=name, dtype=kind) for name, kind in kinds.items()]


user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
code = Entity(name="code", join_keys=["code"], value_type=ValueType.INT32)
of_users = FeatureView(
    name="of_users",
    entities=[user],
    ttl=timedelta(0),
    schema=fields(KINDS | {"text": String, "vector": Array(Float32)}),
    source=source("of_users"),
)
# Of some users, and for two days.
more_of_users = FeatureView(
    name="more_of_users",
    entities=[user],
    ttl=timedelta(days=2),
    schema=fields({"more": Float32}),
    source=source("more_of_users"),
)
of_items = FeatureView(
    name="of_items",
    entities=[item],
    ttl=timedelta(0),
    schema=fields(KINDS),
    source=source("of_items"),
)
of_codes = FeatureView(
    name="of_codes",
    entities=[code],
    ttl=timedelta(0),
    schema=fields({"f32": Float32}),
    source=source("of_codes"),
)
