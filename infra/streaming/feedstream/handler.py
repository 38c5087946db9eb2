"""Keeps the rows of a live store up to date: counts the events of a feed as training counts them.

A message that can't be counted, or not yet, is reported by itself (ReportBatchItemFailures): the
others of its batch are not delivered again.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from feedmodel.demo.counted_rows import CountedRows, StoredPairsError
from feedmodel.demo.counts import Event
from feedrank.features.spec import FeatureSpec, Ids
from feedrank.features.spec_reader import parse_spec
from feedstream.events import EventError, parse_event
from feedstream.store import BusyError, ForeignRowError, Store, Tables

MANIFEST = "serving/manifest.json"
NOT_STORED = (BusyError, ForeignRowError, StoredPairsError, ClientError, BotoCoreError)

log = logging.getLogger()
log.setLevel(logging.INFO)


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Lambda's entry point, for a batch of SQS."""
    failed = _stream().take(event["Records"])
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


class Stream:
    def __init__(self, store: Store, ids: Ids) -> None:
        self._store = store
        self._ids = ids

    def take(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """The ids of the messages that have to come again."""
        failed: list[str] = []
        events: dict[str, Event] = {}  # the first of each id: a second one is a duplicate
        messages: dict[str, list[str]] = {}  # of each event
        for record in records:
            try:
                event = parse_event(record["body"], self._ids)
            except EventError as error:
                log.warning("a message is no event: %s", error)
                failed.append(record["messageId"])
                continue
            events.setdefault(event.id, event)
            messages.setdefault(event.id, []).append(record["messageId"])
        new = 0
        for block in self._store.blocks([*events.values()]):
            added, not_stored = self._apply(block)
            new += added
            failed += [message for event in not_stored for message in messages[event.id]]
        log.info("%d messages: %d new events, %d failed", len(records), new, len(failed))
        return failed

    def _apply(self, events: Sequence[Event]) -> tuple[int, list[Event]]:
        """How many were new, and those that were not stored. One that can't be keeps no other
        from it."""
        try:
            return self._store.apply(events), []
        except NOT_STORED as error:
            if len(events) == 1 or isinstance(error, BusyError):
                log.warning("%d events are not stored: %s", len(events), _reason(error))
                return 0, [*events]
        results = [self._apply([event]) for event in events]
        return sum(new for new, _ in results), [event for _, left in results for event in left]


@cache
def _stream() -> Stream:
    """Once a container."""
    spec = read_spec(os.environ["MODEL_URI"])
    tables = Tables(
        os.environ["FEATURES_TABLE"], os.environ["EVENTS_TABLE"], float(os.environ["REMEMBER_DAYS"])
    )
    config = Config(retries={"mode": "standard", "max_attempts": 5})
    client = boto3.client("dynamodb", config=config)
    return Stream(Store(client, tables, CountedRows(spec)), spec.ids)


def read_spec(model_uri: str) -> FeatureSpec:
    """Of the bundle that is served: its layout and its priors."""
    if not model_uri.startswith("s3://"):
        manifest = (Path(model_uri) / MANIFEST).read_bytes()
    else:
        bucket, _, prefix = model_uri.removeprefix("s3://").partition("/")
        key = f"{prefix.rstrip('/')}/{MANIFEST}"
        manifest = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    expected = re.search("sha256-([0-9a-f]{64})/?$", model_uri)
    if expected and hashlib.sha256(manifest).hexdigest() != expected[1]:
        raise ValueError(f"{MANIFEST} has another SHA-256 than MODEL_URI says")
    return parse_spec(json.loads(manifest)["feature_spec"])


def _reason(error: Exception) -> str:
    """Without what AWS repeats of the request."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code"))
    return str(error) if isinstance(error, NOT_STORED[:3]) else type(error).__name__
