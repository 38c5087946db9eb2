"""A proxy in front of moto's DynamoDB that fails as DynamoDB and networks do, which moto never
does, and a table for it, with rows packed by `struct`."""

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import inf
from threading import Event
from typing import Any
from urllib.request import Request, urlopen
from zlib import crc32

import boto3

from feedrank.features.packed_rows import RowLayout
from feedrank.features.spec import FeatureSpec
from scripted import VARIABLES, Answer, Scripted, Sent, scripted

TABLE = "rows"
GET, BATCH = "DynamoDB_20120810.GetItem", "DynamoDB_20120810.BatchGetItem"
CLOCK_AHEAD = timedelta(minutes=20)
Fault = Callable[[Sent, Answer], Answer]


class Front:
    """`fault` makes of each answer of moto's what the function gets."""

    def __init__(self, server: Scripted, upstream: str) -> None:
        self.url = server.url
        self.fault: Fault = FAULTS["none"]
        self._upstream = upstream
        server.respond = self._respond

    def _respond(self, sent: Sent) -> Answer:
        headers = {name: value for name, value in sent.headers.items() if name != "content-length"}
        with urlopen(Request(self._upstream, sent.body, headers)) as response:
            return self.fault(sent, whole(response.read()))


@contextmanager
def front(upstream: str) -> Iterator[Front]:
    with scripted() as server:
        yield Front(server, upstream)


def whole(body: bytes) -> Answer:
    return Answer(body=body, headers={"x-amz-crc32": str(crc32(body))})


def refusal(status: int, code: str) -> Fault:
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}"}).encode()
    return lambda *_: Answer(status, body)


def slow(seconds: float) -> Fault:
    def fault(_: Sent, answer: Answer) -> Answer:
        Event().wait(seconds)
        return answer

    return fault


def half_unprocessed(sent: Sent, answer: Answer) -> Answer:
    """Of a batch, as often as more than one key is asked for."""
    keys = json.loads(sent.body).get("RequestItems", {}).get(TABLE, {}).get("Keys", [])
    if len(keys) < 2:
        return answer
    left, content = keys[len(keys) // 2 :], json.loads(answer.body)
    rows = [row for row in content["Responses"][TABLE] if {"k": row["k"]} not in left]
    content |= {"Responses": {TABLE: rows}, "UnprocessedKeys": {TABLE: {"Keys": left}}}
    return whole(json.dumps(content).encode())


def all_unprocessed(sent: Sent, answer: Answer) -> Answer:
    wanted = json.loads(sent.body).get("RequestItems")
    content = {"Responses": {TABLE: []}, "UnprocessedKeys": wanted}
    return whole(json.dumps(content).encode()) if wanted else answer


def other_clock(sent: Sent, answer: Answer) -> Answer:
    """As a service whose clock is twenty minutes ahead, and which accepts five."""
    now = datetime.now(UTC) + CLOCK_AHEAD
    signed = datetime.strptime(sent.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs(now - signed) < timedelta(minutes=5):
        return answer
    body = json.dumps({"__type": "InvalidSignatureException", "message": "Signature expired"})
    return Answer(400, body.encode(), {"Date": format_datetime(now, usegmt=True)})


def each_row(change: Callable[[dict[str, Any]], None], *, first_only: bool = False) -> Fault:
    def fault(_: Sent, answer: Answer) -> Answer:
        content = json.loads(answer.body)
        rows = content.get("Responses", {}).get(TABLE, [])
        rows = rows or [content[name] for name in ("Item",) if name in content]
        for row in rows[:1] if first_only else rows:
            change(row)
        return whole(json.dumps(content).encode())

    return fault


def rename(row: dict[str, Any]) -> None:
    row["k"]["S"] += "1"


def poison(row: dict[str, Any]) -> None:
    """A number that is infinite, in a row of the right width."""
    packed = b64decode(row["v"]["B"])
    row["v"]["B"] = b64encode(packed[:-4] + struct.pack("<f", inf)).decode()


FAULTS: Mapping[str, Fault] = {
    "none": lambda _, answer: answer,
    "throttled": refusal(400, "ProvisionedThroughputExceededException"),
    "half the keys unprocessed": half_unprocessed,
    "all keys unprocessed": all_unprocessed,
    "slow by 10 ms": slow(0.01),
    "slow by 50 ms": slow(0.05),
    "slow by 500 ms": slow(0.5),
    "hanging": lambda *_: Answer(fault="hanging"),
    "closed": lambda *_: Answer(fault="closed"),
    "reset": lambda *_: Answer(fault="reset"),
    "reset mid-body": lambda _, answer: Answer(body=answer.body, fault="truncated"),
    "truncated JSON": lambda _, answer: Answer(body=answer.body[: len(answer.body) // 2]),
    "another CRC32": lambda _, answer: Answer(body=answer.body, headers={"x-amz-crc32": "1"}),
    "a web page": lambda *_: Answer(body=b"<!doctype html><p>Please log in"),
    "expired credentials": refusal(400, "ExpiredTokenException"),
    "access denied": refusal(400, "AccessDeniedException"),
    "table missing": refusal(400, "ResourceNotFoundException"),
    "a storm of 500": refusal(500, "InternalServerError"),
    "closed afterwards": lambda _, answer: Answer(
        body=answer.body, headers=answer.headers, fault="closed afterwards"
    ),
    "another clock": other_clock,
    "one poisoned row": each_row(poison, first_only=True),
    "rows of other keys": each_row(rename),
}


class Rows:
    """Rows of users, with their pairs, and of items, as they are written and as they are served.
    They are `size` float32 numbers each; a pair has one."""

    def __init__(self, spec: FeatureSpec, moto: str) -> None:
        """The one table of this moto, which loses what it had."""
        urlopen(Request(f"{moto}/moto-api/reset", method="POST")).close()
        self.users: dict[int, tuple[float, ...]] = {}
        self.pairs: dict[int, dict[int, float]] = {}
        self.items: dict[int, tuple[float, ...]] = {}
        self._mark = {s: RowLayout(spec, s).mark for s in ("user", "pair", "item")}
        self._client = boto3.client(
            "dynamodb",
            endpoint_url=moto,
            region_name=VARIABLES["AWS_REGION"],
            aws_access_key_id=VARIABLES["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=VARIABLES["AWS_SECRET_ACCESS_KEY"],
        )
        self._client.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

    def put_user(self, user: int, row: tuple[float, ...], pairs: Mapping[int, float]) -> None:
        self.users[user], self.pairs[user] = row, dict(pairs)
        packed = struct.pack("<I", self._mark["pair"]) + b"".join(
            struct.pack("<qf", *pair) for pair in sorted(pairs.items())
        )
        self._put(f"u#{user}", self._packed("user", row), p={"B": packed})

    def put_item(self, item: int, row: tuple[float, ...]) -> None:
        self.items[item] = row
        self._put(f"i#{item}", self._packed("item", row))

    def _packed(self, source: str, row: tuple[float, ...]) -> bytes:
        return struct.pack(f"<I{len(row)}f", self._mark[source], *row)

    def _put(self, key: str, row: bytes, **more: Any) -> None:
        now = str(datetime.now(UTC).timestamp())
        item = {"k": {"S": key}, "v": {"B": row}, "t": {"N": now}, **more}
        self._client.put_item(TableName=TABLE, Item=item)
