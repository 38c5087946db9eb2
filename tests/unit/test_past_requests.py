"""Rows of a table as the queries that a container would get, and what can't be one."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feedmodel.errors import PublishError
from feedmodel.publish.past_requests import PastRequest, past_requests
from feedrank.domain import MAX_ITEMS
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import vocabulary_of

NOON_S = 1_780_488_000.0  # 2026-06-03T12:00:00Z
PRICE = {"name": "price", "source": "item"}
HOUR = {"name": "hour", "source": "context", "expression": "hour"}
LOCAL_HOUR = {"name": "hour", "source": "context", "expression": "hour(offset)"}
TV = {"name": "tv", "source": "context", "expression": "equals(device, tv)"}
RECENT = {"name": "recent", "source": "context", "expression": "list(recent)", "size": 2,
          "vocabulary": "v"}  # fmt: skip
SLOT = {"name": "slot", "source": "candidate", "default": -1.0}
KINDS = {"name": "kinds", "source": "candidate", "size": 2, "vocabulary": "v"}
V = {"vocabularies": {"v": ["7", "8", "9"]}}


def _requests(columns: dict[str, Any], *features: dict[str, Any], **more: Any) -> list[PastRequest]:
    spec = parse_spec({"inputs": [{"name": "x", "features": [PRICE, *features]}], **more})
    candidates = CandidateFeatures(spec, {"v": vocabulary_of(["7", "8", "9"])})
    table = pd.DataFrame({"user_id": 1, "item_id": 2} | columns)
    return list(past_requests(spec, table, candidates, "t"))


def test_rows_of_one_user_moment_and_context_are_one_request() -> None:
    requests = _requests(
        {
            "user_id": [1, 2, 1, 1, 1],
            "item_id": [5, 6, 7, 8, 9],
            "timestamp": [NOON_S, NOON_S, NOON_S, NOON_S + 1, NOON_S],
            "device": ["tv", "tv", "tv", "tv", None],
        },
        HOUR, TV,
    )  # fmt: skip
    assert [(r.rows.tolist(), r.query.item_ids, r.query.context) for r in requests] == [
        ([0, 2], [5, 7], {"device": "tv"}),
        ([1], [6], {"device": "tv"}),
        ([3], [8], {"device": "tv"}),
        ([4], [9], {}),
    ]
    assert [r.query.time_s for r in requests] == [NOON_S, NOON_S, NOON_S + 1, NOON_S]


def test_what_was_scored_together_is_one_request() -> None:
    requests = _requests({"item_id": [5, 6, 7], "request_id": ["b", "a", "b"]})
    assert [r.query.item_ids for r in requests] == [[5, 7], [6]]


def test_a_request_of_more_items_than_serving_takes_becomes_several() -> None:
    requests = _requests({"item_id": range(2 * MAX_ITEMS + 1)})
    assert [len(r.rows) for r in requests] == [MAX_ITEMS, MAX_ITEMS, 1]
    assert np.concatenate([r.rows for r in requests]).tolist() == [*range(2 * MAX_ITEMS + 1)]


@pytest.mark.parametrize(
    "timestamp",
    [
        NOON_S,
        int(NOON_S),
        "2026-06-03T12:00:00Z",
        "2026-06-03T12:00:00",
        "2026-06-03T14:00:00+02:00",
        pd.Timestamp("2026-06-03T12:00:00"),
        pd.Timestamp("2026-06-03T14:00:00+02:00"),
        datetime(2026, 6, 3, 12, tzinfo=UTC),
    ],
)
def test_a_moment_is_the_same_however_it_is_written(timestamp: Any) -> None:
    (one,) = _requests({"timestamp": [timestamp]}, HOUR)
    assert one.query.time_s == NOON_S


@pytest.mark.parametrize(
    "timestamp", ["2026-06-03T14:00:00+02:00", pd.Timestamp("2026-06-03T14:00:00+02:00")]
)
def test_a_moments_own_offset_is_kept_where_the_spec_reads_it(timestamp: Any) -> None:
    (one,) = _requests({"timestamp": [timestamp]}, LOCAL_HOUR)
    assert one.query.context["timestamp"] == "2026-06-03T14:00:00+02:00"


def test_cells_are_what_a_caller_would_send() -> None:
    """pandas makes floats of whole numbers where one is missing."""
    (first, second) = _requests(
        {
            "user_id": [1, 2],
            "recent": [[7, 9], None],
            "slot": [3.0, np.nan],
            "kinds": [[7.0, 1.0], None],
        },
        RECENT, SLOT, KINDS, **V,
    )  # fmt: skip
    assert (first.query.context, second.query.context) == ({"recent": "7,9"}, {})
    assert first.query.candidates["slot"].tolist() == [3.0]
    assert second.query.candidates["slot"].tolist() == [-1.0]
    assert first.query.candidates["kinds"].tolist() == [[1, 0]]
    assert second.query.candidates["kinds"].tolist() == [[0, 0]]


def test_ids_are_texts_where_the_spec_says_so() -> None:
    (one,) = _requests({"user_id": "ann", "item_id": ["a", "b"]}, ids="text")
    assert (one.query.user_id, one.query.item_ids) == ("ann", ["a", "b"])


@pytest.mark.parametrize(
    ("columns", "features", "more", "says"),
    [
        ({"item_id": [1.0]}, [], {}, "t: item_id must hold whole numbers, in every row"),
        ({"item_id": [-1]}, [], {}, "t: item_id must be from 0 to 9223372036854775807"),
        ({"item_id": ["a"]}, [], {}, "t: item_id must hold whole numbers"),
        ({"item_id": [1]}, [], {"ids": "text"}, "t: user_id must hold texts, in every row"),
        ({"user_id": "u", "item_id": [""]}, [], {"ids": "text"}, "must have 1 to 128 characters"),
        ({"user_id": "u", "item_id": ["a", None]}, [], {"ids": "text"}, "item_id must hold texts"),
        ({"item_id": [1]}, [HOUR], {}, "t: timestamp is needed, as the model reads the time"),
        ({"timestamp": [NOON_S, np.nan]}, [HOUR], {}, "t: timestamp must be in every row"),
        ({"timestamp": [1_000 * NOON_S]}, [HOUR], {}, "1.78049e+12: numbers are Unix seconds"),
        ({"timestamp": ["noon"]}, [HOUR], {}, "t: timestamp: 'noon' is no ISO 8601 time"),
        ({"timestamp": [NOON_S]}, [LOCAL_HOUR], {}, "t: timestamp must hold texts with an offset"),
        ({"device": [True]}, [TV], {}, "t: device holds booleans: write the texts"),
        ({"recent": [["a,b"]]}, [RECENT], V, "t: recent: a list's texts can't have commas"),
        ({"slot": ["high"]}, [SLOT], {}, "its request: features.slot: must be numbers"),
        ({"slot": [np.inf]}, [SLOT], {}, "features.slot: must be finite 32-bit numbers"),
        (
            {"request_id": [4, 4], "user_id": [1, 2]},
            [],
            {},
            "t: the rows of request_id 4 have several users, times or contexts",
        ),
        ({"request_id": ["a", None]}, [], {}, "t: request_id must be in every row, or be left out"),
    ],
)  # fmt: skip
def test_what_no_caller_could_send_is_refused(
    columns: dict[str, Any], features: list[dict[str, Any]], more: dict[str, Any], says: str
) -> None:
    with pytest.raises(PublishError) as error:
        _requests(columns, *features, **more)
    assert says in str(error.value)
