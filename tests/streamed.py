"""A synthetic feed as a stream's messages, and what training makes of it: the tables and the spec.

The streams tests compare with it.
"""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
from moto.dynamodb import models as moto_models

import demo
from feedmodel.demo.counted_rows import CountedRows
from feedmodel.demo.features import feature_tables
from feedmodel.demo.feed import Feed
from feedmodel.demo.specs import Priors, deep_mlp_spec
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedstream.handler import Stream
from feedstream.store import Store, Tables
from zoo import Known

PRIOR = Priors(ctr=0.1234567890123, dwell_s=21.987654321, device="mobile", age_days=25.0)
TABLES = Tables("rows", "events", 30.0)
USER = ["user_historical_ctr", "user_avg_dwell_time", "user_interaction_count", "user_days_active"]
ITEM = ["item_ctr", "item_avg_dwell_time", "item_popularity"]
PAIR = ["user_item_previous_interactions"]


def spec(prior: Priors = PRIOR) -> FeatureSpec:
    """The demo's, but for an item's age, which grows without events: it comes from the time of its
    creation."""
    data = deep_mlp_spec(prior).to_json()
    for feature in data["inputs"][0]["features"]:
        if feature["name"] == "item_age_days":
            feature["expression"] = "since(item_created_at)"
    return parse_spec(data)


def known() -> Known:
    return Known(lambda: demo.network("deep_mlp"), spec().to_json())


def tables(feed: Feed, as_of_s: int, prior: Priors = PRIOR) -> dict[str, pd.DataFrame]:
    """By the code that training uses."""
    frames = feature_tables(feed, as_of_s, prior)
    items = frames["items"].drop(columns="item_age_days")
    created_s = feed.created_s[items["item_id"].to_numpy() - 1]
    return {**frames, "items": items.assign(item_created_at=created_s)}


def events(feed: Feed) -> Iterator[dict[str, Any]]:
    """Each once, in the order of interactions."""
    for at, created_s in enumerate(feed.created_s.tolist()):
        if created_s < feed.end_s:
            yield {"event_id": f"n{at}", "event": "created", "item_id": at + 1, "time": created_s}
    columns = (feed.user_id, feed.item_id, feed.time_s, feed.clicked, feed.dwell_ms)
    for at, (user, item, time_s, clicked, dwell_ms) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        ids = {"user_id": user, "item_id": item, "time": time_s}
        yield {"event_id": f"i{at}", "event": "impression", **ids}
        if clicked:
            yield {"event_id": f"c{at}", "event": "click", "dwell_ms": dwell_ms, **ids}


def records(sent: Sequence[Any]) -> list[dict[str, str]]:
    """As Lambda gets them from SQS."""
    return [
        {"messageId": f"m{at}", "body": each if isinstance(each, str) else json.dumps(each)}
        for at, each in enumerate(sent)
    ]


def stream(client: Any | None = None) -> Stream:
    client = boto3.client("dynamodb") if client is None else client
    return Stream(Store(client, TABLES, CountedRows(spec())), "number")


def create_tables() -> Any:
    client = boto3.client("dynamodb")
    for name in (TABLES.rows, TABLES.events):
        client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    return client


def items_of(client: Any, table: str) -> dict[str, Any]:
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return {item["k"]["S"]: item for page in pages for item in page["Items"]}


def with_quick_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto copies the whole table, deeply, for each item of a transaction, to restore it where one
    fails. A put replaces an item and changes none, so the copy of a table may share its items."""

    def copied(value: Any) -> Any:
        if not isinstance(value, moto_models.Table):
            return deepcopy(value)
        table = object.__new__(moto_models.Table)
        table.__dict__ = {**value.__dict__, "items": value.items.copy()}
        return table

    monkeypatch.setattr(moto_models, "copy", SimpleNamespace(deepcopy=copied, copy=copied))


def bits(frame: pd.DataFrame) -> Any:
    """Of float32 cells, so that equal means equal, and NaN isn't equal by chance."""
    return np.ascontiguousarray(frame.to_numpy(np.float32)).view(np.uint32)
