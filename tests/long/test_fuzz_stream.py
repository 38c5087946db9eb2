"""A feed's events through the stream's function, out of order and some of them twice or more: the
rows are what training computes from the same feed, and so is the ranking."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fakes
import streamed
from feedmodel.demo.feed import Feed, generate_feed
from feedrank.features.packed_rows import RowLayout
from long.conftest import CASES, PATIENT
from zoo_bundles import publish

EVENTS = max(CASES, 1_000)
USERS, ITEMS, BATCH = 60, 200, 100
SEED = 11
REQUESTS = 5


@pytest.fixture(scope="module")
def feed() -> Feed:
    """With as many events: each eighth interaction, about, is clicked."""
    return generate_feed(USERS, ITEMS, EVENTS - ITEMS, SEED)


def _deliveries(feed: Feed) -> list[list[dict[str, Any]]]:
    """All events in any order, a fifth of them again, in batches: as SQS may deliver them."""
    random = np.random.default_rng(SEED)
    events = [*streamed.events(feed)]
    again = random.choice(len(events), len(events) // 5)
    order = random.permutation([*range(len(events)), *again.tolist()])
    sent = [events[at] for at in order.tolist()]
    return [sent[start : start + BATCH] for start in range(0, len(sent), BATCH)]


def _cells(client: Any) -> dict[str, pd.DataFrame]:
    """What the table has, as serving unpacks it."""
    stored = streamed.items_of(client, "rows")
    layouts = {source: RowLayout(streamed.spec(), source) for source in ("user", "item", "pair")}
    keys = {source: sorted(k for k in stored if k[0] == source[0]) for source in ("user", "item")}
    frames = {}
    for source, names in (("user", streamed.USER), ("item", streamed.ITEM)):
        rows, reasons = layouts[source].unpack([stored[key]["v"]["B"] for key in keys[source]])
        assert {*reasons} == {""}
        frame = pd.DataFrame(rows["values"].tolist(), columns=names, dtype=np.float32)
        frame["time"] = [float(stored[key]["t"]["N"]) for key in keys[source]]
        frame.insert(0, f"{source}_id", [int(key[2:]) for key in keys[source]])
        if source == "item":
            frame["item_created_at"] = rows["times"][:, 0]
        frames[f"{source}s"] = frame.sort_values(f"{source}_id", ignore_index=True)
    pairs = []
    for key in keys["user"]:
        rows, reason = layouts["pair"].unpack_pairs(stored[key]["p"]["B"])
        assert reason == ""
        ids, counts = rows["item"].tolist(), rows["values"][:, 0].tolist()
        pairs += [(int(key[2:]), item, count) for item, count in zip(ids, counts, strict=True)]
    columns = ["user_id", "item_id", *streamed.PAIR]
    frames["pairs"] = pd.DataFrame(pairs, columns=columns).sort_values(
        ["user_id", "item_id"], ignore_index=True
    )
    return frames


def _newest(feed: Feed, ids: Any, of: pd.Series) -> list[float]:
    """The time of each one's newest interaction; NaN without one."""
    return pd.Series(feed.time_s).groupby(ids).max().reindex(of).astype(float).tolist()


def _ranked(bundle: Path, uri: str, requests: dict[int, list[int]]) -> list[Any]:
    """The responses, for each user's items."""
    settings = {"MODEL_URI": str(bundle), "FEATURES_URI": uri, "FEATURES_TIMEOUT_MS": "60000"}
    context = {"device": "mobile", "timestamp": "2026-10-26T18:30:00Z"}
    bodies = []
    with fakes.container(**settings, **PATIENT, AWS_LAMBDA_FUNCTION_NAME="feedrank") as handler:
        for user, items in requests.items():
            body = {"user_id": user, "item_ids": items, "context": context}
            event = fakes.http_event("POST", "/predict", body)
            response = handler.lambda_handler(event, fakes.LambdaContext(300_000))
            assert response["statusCode"] == 200, response
            bodies.append(json.loads(response["body"]))
    return bodies


@pytest.mark.slow
@pytest.mark.usefixtures("aws_server")
def test_rows_and_rankings_are_those_of_the_batch(
    feed: Feed,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    printed: fakes.LogLines,
) -> None:
    streamed.with_quick_transactions(monkeypatch)
    client, stream = streamed.create_tables(), streamed.stream()
    for batch in _deliveries(feed):
        assert stream.take(streamed.records(batch)) == []
    known = {event["event_id"] for event in streamed.events(feed)}
    assert streamed.items_of(client, "events").keys() == known

    batch_tables, rows = streamed.tables(feed, feed.end_s), _cells(client)
    for name, ids, values in (
        ("users", ["user_id"], streamed.USER),
        ("items", ["item_id"], streamed.ITEM),
        ("pairs", ["user_id", "item_id"], streamed.PAIR),
    ):
        expected = batch_tables[name]
        assert rows[name][ids].to_numpy().tolist() == expected[ids].to_numpy().tolist()
        np.testing.assert_array_equal(
            streamed.bits(rows[name][values]), streamed.bits(expected[values]), name
        )
    created_s = batch_tables["items"]["item_created_at"].tolist()
    assert rows["items"]["item_created_at"].tolist() == created_s
    users, items = rows["users"], rows["items"]
    assert users["time"].tolist() == _newest(feed, feed.user_id, users["user_id"])
    shown_s = _newest(feed, feed.item_id, items["item_id"])
    newest = np.fmax(shown_s, created_s)  # of an item that nobody was shown: its creation
    assert items["time"].tolist() == newest.tolist()

    bundle = publish(streamed.known(), batch_tables, tracking_uri, tmp_path).directory
    requests = {
        user: items["item_id"].tolist()[user :: ITEMS // 50]
        for user in users["user_id"].tolist()[:REQUESTS]
    }
    lives = _ranked(bundle, "dynamodb://rows", requests)
    for live, snapshot in zip(lives, _ranked(bundle, "snapshot", requests), strict=True):
        assert (live["degraded"], live.get("unknown")) == ([], None)
        assert live["predictions"] == snapshot["predictions"]
        assert len({each["score"] for each in live["predictions"]}) > ITEMS // 10
    sources = [line["row_sources"]["sources"] for line in printed() if line.get("row_sources")]
    assert len(sources) == REQUESTS
    # Items are in the container's cache from the second request on.
    assert {*"".join(sources)} <= {"s", "c"}
    assert {line[0] for line in sources} == {"s"}
