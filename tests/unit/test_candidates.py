"""What a caller says of each candidate: read, or refused by name."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.errors import InvalidRequestError
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import vocabulary_of

NAN = float("nan")
SPEC = parse_spec(
    {
        "inputs": [
            {"name": "dense", "features": [
                {"name": "score", "source": "candidate", "default": 0.5},
                {"name": "price", "source": "candidate", "default": None},
                {"name": "clip", "source": "candidate", "size": 2, "keep": "last"},
                {"name": "vector", "source": "candidate", "size": 2, "default": 0.25}]},
            {"name": "sparse", "type": "int64", "features": [
                {"name": "position", "source": "candidate"},
                {"name": "source", "source": "candidate", "vocabulary": "sources"}]},
        ],
        "vocabularies": {"sources": ["ann", "7"]},
    }
)  # fmt: skip
READER = CandidateFeatures(SPEC, {"sources": vocabulary_of(["ann", "7"])})


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("score", [1, 0.25, None], [1.0, 0.25, 0.5]),
        ("price", [None, 2, 3], [NAN, 2.0, 3.0]),
        ("clip", [[1, 2, 3], [4], None], [[2, 3], [0, 4], [0, 0]]),
        ("vector", [[1, 2], None, [3.5, 4]], [[1, 2], [0.25, 0.25], [3.5, 4]]),
        ("position", [1, 2**62, None], [1, 2**62, 0]),
        ("position", [1.0, 2, 3], [1, 2, 3]),
        ("position", [1.0, 2**62 + 1, -(2**63)], [1, 2**62 + 1, -(2**63)]),
        ("score", [10**30, -(2**63), 2**64], [1e30, -(2.0**63), 2.0**64]),
        ("source", ["ann", 7, "new"], [1, 2, 0]),
        ("source", [None, "7", "ann"], [0, 2, 1]),
    ],
)
def test_values_are_read_as_the_spec_says(name: str, cells: list[Any], expected: Any) -> None:
    column = READER.read({name: cells}, 3)[name]
    np.testing.assert_array_equal(column, expected)
    assert column.dtype == (np.int64 if name in {"position", "source"} else np.float64)


CELL = st.none() | st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.none() | st.lists(CELL, max_size=9), min_size=1, max_size=12), st.integers(1, 5))
def test_lists_of_any_length_keep_their_last_values(cells: list[Any], size: int) -> None:
    feature = {"name": "f", "source": "candidate", "size": size, "default": -7}
    spec = parse_spec({"inputs": [{"name": "x", "type": "int64", "features": [feature]}]})
    expected = []
    for cell in cells:
        last = [-7 if number is None else number for number in (cell or [])][-size:]
        expected.append([-7] * (size - len(last)) + last)
    column = CandidateFeatures(spec).read({"f": cells}, len(cells))["f"]
    assert column.tolist() == expected


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"sc0re": [1, 2, 3]}, "1 unknown; this model reads score, price, clip, vector, "),
        ({"score": [1, 2]}, "features.score: must have one value for each of the 3 items"),
        ({"score": [1, 2, "3"]}, "features.score: must be numbers"),
        ({"score": [1, 2, True]}, "features.score: must be numbers"),
        ({"score": [1, 2, [3]]}, "features.score: must be numbers"),
        ({"score": [1, 2, {}]}, "features.score: must be numbers"),
        ({"score": [1, 2, NAN]}, "features.score: must be finite 32-bit numbers"),
        ({"price": [None, 2, NAN]}, "features.price: must be finite 32-bit numbers"),
        ({"score": [1, 2, 1e39]}, "features.score: must be finite 32-bit numbers"),
        ({"score": [1, 2, 10**400]}, "features.score: must be finite 32-bit numbers"),
        ({"clip": [1, 2, 3]}, "features.clip: each item's value must be a list, or null"),
        ({"clip": [["a"], [], []]}, "features.clip: must be numbers"),
        ({"vector": [[1, 2], [1], None]}, "each item's value must have 2 numbers, or be null"),
        ({"vector": [[1, 2], [1, 2, 3], None]}, "value must have 2 numbers, or be null"),
        ({"vector": [[1, 2], [], None]}, "value must have 2 numbers, or be null"),
        ({"vector": [[1, None], [1, 2], 3]}, "each item's value must be a list, or null"),
        ({"position": [1, 2, 0.5]}, "features.position: must be whole numbers of 64 bits"),
        ({"position": [1, 2, 2**63]}, "features.position: must be whole numbers of 64 bits"),
        ({"position": [1, 2, 2**65]}, "features.position: must be whole numbers of 64 bits"),
        ({"position": [1, 2, NAN]}, "features.position: must be whole numbers of 64 bits"),
        ({"position": [1, 2, -(2**63) - 1]}, "features.position: must be whole numbers"),
        ({"source": ["ann", 0.5, "x"]}, "features.source: must be texts, or whole numbers"),
    ],
)
def test_what_the_spec_does_not_describe_is_refused_by_name(
    sent: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        READER.read(sent, 3)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("sent", "record"),
    [
        ({"score": [1, 0.25, None]}, {"score": [1, 0.25, None]}),
        ({"clip": [[1, 2, 3], [], None]}, {"clip": [[2, 3], [], None]}),
        ({"source": ["ann", "SECRET", 7]}, {"source": ["ann", None, 7]}),
        ({"source": [None, 8, "7"], "score": [1, 2, 3]},
         {"source": [None, None, "7"], "score": [1, 2, 3]}),
        ({}, {}),
    ],
)  # fmt: skip
def test_a_record_holds_what_counts_and_no_text_that_the_bundle_lacks(
    sent: dict[str, Any], record: dict[str, Any]
) -> None:
    recorded = json.loads(READER.recorded(sent))
    assert recorded == record
    before, after = READER.read(sent, 3), READER.read(recorded, 3)
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_a_schema_says_what_may_be_sent() -> None:
    assert READER.schema(7)["position"] == {
        "type": "array",
        "maxItems": 7,
        "items": {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1},
        "description": "One for each of `item_ids`; null is the default",
    }
    vector = READER.schema(7)["vector"]["items"]
    assert (vector["minItems"], vector["maxItems"]) == (2, 2)
    assert "minItems" not in READER.schema(7)["clip"]["items"]
    assert READER.described() == {
        "score": {"type": "float32"},
        "price": {"type": "float32"},
        "clip": {"type": "float32", "size": 2},
        "vector": {"type": "float32", "size": 2},
        "position": {"type": "int64"},
        "source": {"type": "text"},
    }
