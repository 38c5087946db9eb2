"""What a stream counts, and which events and specs it refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamed
from feedmodel.demo.counted_rows import CountedRows, StoredPairsError
from feedmodel.demo.counts import Event, ItemCounts, UserCounts
from feedmodel.demo.specs import deep_mlp_spec, two_tower_spec
from feedrank.errors import SpecError
from feedrank.features.packed_rows import RowLayout
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import text_key
from feedstream.events import EventError, parse_event

PROJECT = Path(__file__).parents[2]
DAY_S = 86_400
EVENTS = st.builds(
    Event,
    st.text(),
    st.sampled_from(["created", "impression", "click"]),
    st.integers(1, 9),
    st.floats(20_000 * DAY_S, 23_600 * DAY_S),  # ten years
    st.integers(1, 9),
    st.integers(0, 10**6),
)


LISTS = st.lists(EVENTS, max_size=8)


@given(LISTS.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_the_order_of_events_makes_no_difference(both: tuple[list[Event], list[Event]]) -> None:
    for kind in (UserCounts, ItemCounts):
        one, other = kind(), kind()
        for event in both[0]:
            one.add(event)
        for event in both[1]:
            other = kind.from_text(other.to_text())  # as if each had come by itself
            other.add(event)
        assert one == other


@given(LISTS)
def test_active_days_are_the_different_days_of_impressions(events: list[Event]) -> None:
    counts = UserCounts()
    for event in events:
        counts.add(event)
    shown = [event for event in events if event.kind == "impression"]
    assert counts.days == len({event.time_s // DAY_S for event in shown})


# ---- Events --------------------------------------------------------------------------------------

GOOD = {
    "event_id": "e",
    "event": "click",
    "user_id": 7,
    "item_id": 8,
    "time": 1_764_000_000.5,
    "dwell_ms": 12,
}


def test_an_event_is_read() -> None:
    expected = Event("e", "click", 8, 1_764_000_000.5, 7, 12)
    assert parse_event(json.dumps(GOOD), "number") == expected
    texts = GOOD | {"user_id": "u", "item_id": "i"}
    expected = replace(expected, user=text_key("u"), item=text_key("i"))
    assert parse_event(json.dumps(texts), "text") == expected


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"event": "like"}, "event"),
        ({"event": ["click"]}, "event"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 257}, "event_id"),
        ({"event_id": 7}, "event_id"),
        ({"user_id": -1}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": "7"}, "user_id"),
        ({"item_id": 2**63}, "item_id"),
        ({"item_id": None}, "item_id"),
        ({"time": 1_764_000_000_000}, "time"),  # in milliseconds
        ({"time": 1_000_000}, "time"),  # in thousands of seconds
        ({"time": "2026-11-25"}, "time"),
        ({"time": float("nan")}, "time"),
        ({"time": True}, "time"),
        ({"dwell_ms": -1}, "dwell_ms"),
        ({"dwell_ms": 1.5}, "dwell_ms"),
        ({"dwell_ms": 10**9}, "dwell_ms"),
        ({"event": "impression"}, "dwell_ms"),
        ({"event": "created", "dwell_ms": 0}, "user_id"),
        ({"timestamp": 1}, "no keys beside"),
    ],
)
def test_what_can_not_be_counted_is_refused_by_its_key(change: Any, named: str) -> None:
    with pytest.raises(EventError, match=named):
        parse_event(json.dumps(GOOD | change), "number")


@pytest.mark.parametrize("body", ["", "{", "[]", "7", "null", b"\xff", "[" * 100_000])
def test_what_is_no_json_object_is_refused(body: str | bytes) -> None:
    with pytest.raises(EventError, match="it is no JSON"):
        parse_event(body, "number")


def test_a_text_id_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(EventError, match="item_id is no Unicode"):
        parse_event(json.dumps(GOOD | {"user_id": "u", "item_id": "\ud800"}), "text")


# ---- Rows ----------------------------------------------------------------------------------------


def _spec(change: dict[str, Any], name: str = "item_ctr") -> FeatureSpec:
    data = streamed.spec().to_json()
    for feature in data["inputs"][0]["features"]:
        if feature["name"] == name:
            feature.update(change)
    return parse_spec(data)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (deep_mlp_spec(streamed.PRIOR), r"item_age_days .* since\(item_created_at\)"),
        (_spec({"name": "item_likes"}), "item_likes isn't made of counts"),
        (_spec({"default": 0.5}), "share a prior"),
        (_spec({"default": None}), "share a prior"),
        (_spec({"size": 2}), "item_ctr isn't made of counts"),
    ],
)
def test_a_spec_of_other_features_is_refused_by_name(spec: FeatureSpec, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        CountedRows(spec)


def test_a_model_without_pairs_has_rows_without_them() -> None:
    data = two_tower_spec(streamed.PRIOR).to_json()
    for feature in data["inputs"][1]["features"]:
        if feature["name"] == "item_age_days":
            feature["expression"] = "since(item_created_at)"
    rows = CountedRows(parse_spec(data))
    assert (rows.has_pairs, rows.has_items) == (False, True)


def test_an_item_whose_creation_is_still_to_come_has_no_time() -> None:
    (row,) = CountedRows(streamed.spec()).items([ItemCounts(3, 1, 500)])
    rows, reasons = RowLayout(streamed.spec(), "item").unpack([row])
    assert (reasons, isnan(rows["times"][0, 0])) == ([""], True)


def test_pairs_add_up_by_item() -> None:
    rows, layout = CountedRows(streamed.spec()), RowLayout(streamed.spec(), "pair")
    packed = rows.with_pairs(rows.with_pairs(b"", [5, 9, 5]), [2, 5])
    pairs, reason = layout.unpack_pairs(packed)
    assert reason == ""
    assert pairs["item"].tolist() == [2, 5, 9]
    assert pairs["values"][:, 0].tolist() == [1.0, 3.0, 1.0]
    assert pairs["values"].dtype == np.float32
    with pytest.raises(StoredPairsError, match="layout"):
        rows.with_pairs(b"\x00" * 16, [5])


def _loaded(*modules: str) -> set[str]:
    """The packages that a fresh process has after these imports."""
    paths = [str(PROJECT / path) for path in ("infra/streaming", "function", "layers/model")]
    program = f"""
import sys
sys.path[:0] = {paths}
import {", ".join(modules)}
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return {*process.stdout.split()} - {*sys.stdlib_module_names}


def test_the_function_loads_numpy_and_boto3_alone() -> None:
    """Its package has NumPy, and Lambda's runtime boto3."""
    ours = {"feedstream", "feedmodel", "feedrank"}
    assert _loaded("feedstream.handler") - _loaded("boto3", "numpy") == ours
