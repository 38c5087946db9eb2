"""Rows that Feast's SDK wrote into DynamoDB, and what the SDK answered, as
`tests/feast_store/record.py` has recorded them; and protobuf's own runtime for Feast's values."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

RECORDED = json.loads((Path(__file__).parent / "feast_store/rows.json").read_text())
PROJECT = "kinds"
TABLES: dict[str, dict[str, Any]] = {
    name: {item["entity_id"]["S"]: item for item in items}
    for name, items in RECORDED["tables"].items()
}
USERS, ITEMS, CODES = RECORDED["answers"]
EVENT_S = 1_795_154_400.123456  # of the oldest rows: 2026-11-20 06:00:00.123456


def answers(answer: Any, reference: str) -> Iterator[tuple[Any, Any, Any]]:
    """Each id with the table's item, or None, and what the SDK answered for the feature."""
    table = TABLES[f"{PROJECT}.{reference.partition(':')[0]}"]
    values = answer["values"][reference]
    for id_, key, value in zip(answer["ids"], answer["keys"], values, strict=True):
        yield id_, table.get(key), value


DEMO: dict[str, list[Any]] = RECORDED["demo"]  # by table

# `feast/types/Value.proto`, as far as it is scalars, a text and a list: name, number, type.
FIELDS = {
    "bytes_val": (1, "TYPE_BYTES"),
    "string_val": (2, "TYPE_STRING"),
    "int32_val": (3, "TYPE_INT32"),
    "int64_val": (4, "TYPE_INT64"),
    "double_val": (5, "TYPE_DOUBLE"),
    "float_val": (6, "TYPE_FLOAT"),
    "bool_val": (7, "TYPE_BOOL"),
    "unix_timestamp_val": (8, "TYPE_INT64"),
    "null_val": (19, "TYPE_INT32"),
}


def _value_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="value.proto", package="t", syntax="proto3")
    message = file.message_type.add(name="Value")
    message.oneof_decl.add(name="val")
    for name, (number, type_) in FIELDS.items():
        message.field.add(
            name=name,
            number=number,
            oneof_index=0,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type=descriptor_pb2.FieldDescriptorProto.Type.Value(type_),
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Value"))


VALUE = _value_class()
