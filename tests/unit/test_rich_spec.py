"""Inputs of whole numbers, lists, vocabularies, times and candidates: from rows to tensors."""

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fullspec
from feedops.workspace import PROJECT
from feedrank.domain import Query
from feedrank.errors import BundleError, SpecError
from feedrank.features.expressions import DAY_S, parse
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import Vocabulary, text_key, text_keys, vocabulary_of
from feedrank.http.schemas import time_of
from fullspec import NAN, NOW_S, RICH


def _query(user: str, items: list[str], context: dict[str, str], **candidates: Any) -> Query:
    arrays = {name: np.array(values) for name, values in candidates.items()}
    return Query(text_key(user), text_keys(items), context, NOW_S, arrays)


def test_a_rich_spec_survives_being_written_and_read_again() -> None:
    spec = parse_spec(RICH)
    assert parse_spec(spec.to_json()) == spec
    assert spec.request_vocabularies() == ("items", "device")


@pytest.mark.parametrize(
    "outputs",
    [{"a": 1.0, "b": 2.0}, [{"name": "b", "weight": 2.0}, {"name": "a", "weight": 1.0}]],
    ids=["by name", "in order"],
)
def test_sorted_keys_change_no_output(outputs: Any) -> None:
    """As MLflow's artifacts and a bundle's manifest have them."""
    data = {"inputs": RICH["inputs"], "vocabularies": RICH["vocabularies"], "outputs": outputs}
    spec = parse_spec(data)
    again = parse_spec(json.loads(json.dumps(spec.to_json(), sort_keys=True)))
    assert again == spec
    assert again.has_order == isinstance(outputs, list)
    if again.has_order:
        assert list(again.outputs) == ["b", "a"]


def test_every_kind_of_feature_reaches_its_place(tmp_path: Path) -> None:
    spec = parse_spec(RICH)
    store = fullspec.store(tmp_path, spec)
    query = _query(
        "ann", ["i", "nobody", "j"], {"recent": "z, x,?,w,y", "device": "phone"},
        retrieval_score=[0.9, 0.8, 0.7], clip=[[1, 2], [3, 4], [5, 6]],
    )  # fmt: skip
    inputs = MatrixBuilder(spec, store.vocabularies).build(query, store.look_up(query))
    assert {n: (t.dtype.name, t.shape) for n, t in inputs.items()} == {
        "who": ("int64", (4,)), "film": ("int64", (3, 3)), "dense": ("float32", (3, 9))
    }  # fmt: skip
    assert inputs["who"].tolist() == [2, 0, 4, 2]  # the last three that were sent
    assert inputs["film"].tolist() == [[2, 0, 1], [2, 0, 0], [2, 1, 2]]
    expected = [
        [0.1, 0.2, 5.0, 3.0, 7.0, 1.0, 0.9, 1, 2],
        [-0.5, 0.5, NAN, -1.0, 0.0, 99.0, 0.8, 3, 4],
        [0.3, 0.4, NAN, -1.0, 0.0, 99.0, 0.7, 5, 6],
    ]
    np.testing.assert_array_equal(inputs["dense"], np.array(expected, np.float32))


def test_what_is_not_sent_or_not_known_is_the_default(tmp_path: Path) -> None:
    spec = parse_spec(RICH)
    store = fullspec.store(tmp_path, spec)
    query = _query("bob", ["j"], {"recent": "y"})
    rows = store.look_up(query)
    inputs = MatrixBuilder(spec, store.vocabularies).build(query, rows)
    assert (rows.unknown_user, rows.unknown_items.tolist()) == (True, [False])
    assert inputs["who"].tolist() == [0, 0, 0, 2]
    assert inputs["film"].tolist() == [[0, 1, 2]]
    assert inputs["dense"][0, 4:].tolist() == [0.0, 99.0, 0.25, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"items.integers": np.zeros((2, 3), np.int32)}, "items.integers is (2, 3) of int32"),
        ({"items.integers": np.zeros((2, 2), np.float32)}, "items.integers is (2, 2) of float32"),
        ({"items.times": np.zeros((1, 1))}, "items.times is (1, 1)"),
        ({"vocabulary.items.indices": np.zeros(3, np.int32)}, "keys and indices differ"),
    ],
)
def test_an_array_of_another_shape_or_type_refuses_the_bundle(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError) as error:
        fullspec.store(tmp_path, parse_spec(RICH), **changed)
    assert says in str(error.value)


def _with(feature: dict[str, Any], **input_: Any) -> dict[str, Any]:
    item = {"name": "price", "source": "item"}
    return {
        "inputs": [
            {"name": "x", "features": [feature], **input_},
            {"name": "y", "features": [item]},
        ],
        "vocabularies": {"v": ["a"]},
    }


A = {"name": "a", "source": "user"}
C = {"name": "c", "source": "context"}
V = {"name": "v", "source": "user", "vocabulary": "v"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (_with(V, type="float16"), "inputs[0].type must be 'float32' or 'int64', not 'float16'"),
        (_with(A | {"default": 0.5}, type="int64"), "default must be a whole number"),
        (_with(A | {"size": 0}), "size must be a whole number from 1"),
        (_with(A | {"size": 2, "default": [1.0]}), "with one for each of its values"),
        (_with(A | {"size": 2, "default": [1, None]}), "a list of defaults holds numbers"),
        (_with(A | {"size": 1, "default": [1]}, type="int64"), "is for a float32 list"),
        (_with(A | {"size": True}), "size must be a whole number from 1"),
        (_with(A | {"keep": "last"}), 'keep must be "last", of a feature with a size'),
        (_with(A | {"size": 2, "keep": "first"}), 'keep must be "last", of a feature with'),
        (_with(A | {"size": 2, "keep": ["last"]}), 'keep must be "last", of a feature with'),
        (_with(A | {"vocabulary": "w"}), "'a' needs the vocabulary 'w', which isn't there"),
        (_with(A), "no feature uses the vocabulary 'v'"),
        (_with(V | {"default": 2}), "what a vocabulary lacks is 0"),
        (_with(C | {"expression": "text(k)"}), "text(key) and list(key), and no other, need a voc"),
        (_with(C | {"expression": "list(k)", "vocabulary": "v"}), "list(key), and no other"),
        (_with(C | {"expression": "hour(Mars/Base)"}), "'Mars/Base' is no time zone"),
        (_with(A | {"expression": "since()"}), "may have since(column)"),
        (_with(A | {"expression": "since(t)"}, type="int64"), "is one float32 number, in days"),
        (_with({"name": "k", "source": "candidate"}, per="request"), "'k' differs by item"),
        (_with(V) | {"outputs": ["a"]}, "outputs without weights need a score"),
        (_with(V) | {"outputs": {"a": NAN}}, "outputs.a must be a finite number"),
        (_with(V) | {"outputs": {"a b": 1}}, "'a b' is no name"),
        (_with(V) | {"score": "a"}, "a score needs outputs as a list of names"),
        (_with(V) | {"score": "1", "outputs": []}, "a score needs outputs as a list of names"),
        (_with(V) | {"outputs": [{"name": "a"}]}, "outputs.a must be a finite number"),
        (_with(V) | {"outputs": [{"name": "a", "weight": 10**400}]}, "must be a finite number"),
        (_with(V) | {"outputs": [{"a": 1}]}, "outputs[0]: unknown key 'a'"),
        (_with(V) | {"outputs": [{"name": ["a"], "weight": 1}]}, "must be different texts"),
        (_with(V) | {"outputs": [{"name": "a", "weight": 1}] * 2}, "must be different texts"),
        (_with(V) | {"range": [0, 5]}, "range must be [0, 1], or null"),
        (_with(V) | {"ids": "uuid"}, "ids must be one of number, text"),
        (_with(V) | {"vocabularies": {"v": ["a", "a"]}}, "vocabularies.v has an entry twice"),
        (_with(V) | {"vocabularies": {"v": [1.5]}}, "vocabularies.v must be a list of texts"),
    ],
)
def test_a_rich_spec_that_does_not_hold_together_is_refused(data: Any, says: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(data)
    assert says in str(error.value)


def test_a_vocabulary_numbers_its_texts_from_one_and_others_zero() -> None:
    vocabulary = vocabulary_of(["b", "a", "ü"])
    assert vocabulary.numbers(["a", "x", "ü", "b"]).tolist() == [2, 0, 3, 1]
    empty = Vocabulary(np.empty(0, np.int64), np.empty(0, np.int32))
    assert empty.numbers(["a"]).tolist() == [0]


def test_a_text_id_is_a_number_that_any_id_may_be() -> None:
    keys = text_keys(["", "a", "ü" * 128])
    assert keys.tolist() == [text_key(""), text_key("a"), text_key("ü" * 128)]
    assert (keys >= 0).all()


@pytest.mark.parametrize(
    ("expression", "context", "hour"),
    [
        ("hour(Europe/Berlin)", {}, 9.0),  # NOW_S is 2027-01-15T08:00:00Z
        ("hour(Asia/Kolkata)", {}, 13.0),
        ("hour(offset)", {"timestamp": "2027-01-15T11:00:00+03:00"}, 11.0),
        ("hour(offset)", {}, 8.0),
    ],
)
def test_the_hour_is_of_a_zone_or_of_the_callers_own_clock(
    expression: str, context: dict[str, str], hour: float
) -> None:
    assert parse(expression).compute(context, NOW_S) == hour


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", "America/New_York", "UTC"])
@pytest.mark.parametrize(
    "stamp",
    ["0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z", "9999-12-31T00:00:00Z",
     "9999-12-31T23:59:59Z", "1969-12-31T23:59:59.999999Z", "1883-11-18T16:59:59Z"],
)  # fmt: skip
def test_the_hour_of_a_zone_is_that_of_the_calendar_at_the_ends_of_time_too(
    zone: str, stamp: str
) -> None:
    moment = datetime.fromisoformat(stamp)
    cycle = timedelta(days=146_097)  # out of reach of the ends, where Python's own calendar ends
    within = (
        moment + cycle if moment.year == 1 else moment - cycle if moment.year > 9_000 else moment
    )
    expected = within.astimezone(ZoneInfo(zone))
    time_s = moment.timestamp()
    assert parse(f"hour({zone})").compute({}, time_s) == expected.hour
    assert parse(f"weekday({zone})").compute({}, time_s) == expected.weekday()


@given(st.datetimes(), st.integers(-1_439, 1_439))
def test_the_callers_own_clock_is_read_off_its_timestamp(at: datetime, minutes: int) -> None:
    offset = timezone(timedelta(minutes=minutes))
    stamp = at.replace(tzinfo=offset).isoformat()
    try:
        time_s = time_of({"timestamp": stamp}, 0.0)
    except (ValueError, OverflowError):
        return  # the year in UTC is not 1 to 9999: a 422
    context = {"timestamp": stamp}
    assert parse("hour(offset)").compute(context, time_s) == at.hour
    assert parse("weekday(offset)").compute(context, time_s) == at.weekday()
    assert parse("is_weekend(offset)").compute(context, time_s) == float(at.weekday() > 4)


@pytest.mark.parametrize(
    ("stamp", "hour"),
    [
        ("2026-11-22T12:00", 12),  # no offset: UTC
        ("2026-11-22T12:00:00Z", 12),
        ("2026-11-22T00:10:00-00:30", 0),
        ("2026-11-22T23:59:59.999999+23:59", 23),
        ("2026-11-22T23:59:59.999999-23:59", 23),
        ("2026-11-22", 0),
        ("20261122T0710+0545", 7),
        ("2026-W47-7T07:10:00+14:00", 7),
    ],
)
def test_the_hour_of_an_odd_timestamp_is_the_one_that_stands_in_it(stamp: str, hour: int) -> None:
    context = {"timestamp": stamp}
    assert parse("hour(offset)").compute(context, time_of(context, 0.0)) == hour


def test_zones_are_known_without_a_database_of_the_system() -> None:
    """Lambda's image may have none; the runtime layer has the package tzdata."""
    code = (
        "import zoneinfo; zoneinfo.reset_tzpath(())\n"
        "from feedrank.features.expressions import parse\n"
        f"print(parse('hour(Europe/Berlin)').compute({{}}, {NOW_S}))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "9.0\n"
    layer = (PROJECT / "layers" / "runtime" / "requirements.txt").read_text()
    assert "\ntzdata==" in layer


def test_a_column_of_times_has_each_its_own_offset() -> None:
    half_a_year = np.array([NOW_S, NOW_S + 180 * DAY_S])
    assert parse("hour(Europe/Berlin)").compute({}, half_a_year).tolist() == [9.0, 10.0]


VECTOR = {"name": "v", "source": "item", "size": 2, "store": "float16"}


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        (VECTOR | {"store": "int8"}, "store must be 'float32' or 'float16', not 'int8'"),
        (VECTOR | {"source": "pair"}, "float16 is for a float32 list of a user or an item"),
        (VECTOR | {"vocabulary": "words"}, "float16 is for a float32 list of a user or an item"),
        (VECTOR | {"size": 1, "default": 0.1}, "default must be a float16 number"),
        (VECTOR | {"default": 1e6}, "default must be a float16 number"),
        (VECTOR | {"default": [0.5, 0.3]}, "default must be a float16 number"),
        ({"name": "v", "source": "item", "store": "float16"}, "float16 is for a float32 list"),
    ],
)
def test_float16_is_for_vectors_whose_default_it_can_hold(
    feature: dict[str, Any], says: str
) -> None:
    words = {"vocabularies": {"words": ["a"]}} if "vocabulary" in feature else {}
    with pytest.raises(SpecError, match=says):
        parse_spec({"inputs": [{"name": "x", "features": [feature]}]} | words)
    with pytest.raises(SpecError, match="float16 is for a float32 list"):
        parse_spec({"inputs": [{"name": "x", "type": "int64", "features": [VECTOR]}]})


def test_float16_vectors_reach_the_model_as_float32(tmp_path: Path) -> None:
    inputs = [RICH["inputs"][0], RICH["inputs"][1], dict(RICH["inputs"][2])]
    inputs[2]["features"] = [
        f | ({"store": "float16"} if f["name"] == "embedding" else {})
        for f in RICH["inputs"][2]["features"]
    ]
    spec = parse_spec(RICH | {"inputs": inputs})
    assert parse_spec(spec.to_json()) == spec
    order = np.argsort(text_keys(["i", "j"]))
    halves = np.array([[0.1, 0.2], [0.3, 0.4]], np.float16)[order]
    store = fullspec.store(
        tmp_path, spec, **{"items.values": np.zeros((2, 1), np.float32), "items.halves": halves}
    )
    query = _query("ann", ["i", "nobody", "j"], {})
    dense = MatrixBuilder(spec, store.vocabularies).build(query, store.look_up(query))["dense"]
    expected = np.array([[0.1, 0.2], [-0.5, 0.5], [0.3, 0.4]], np.float16).astype(np.float32)
    assert dense.dtype == np.float32
    np.testing.assert_array_equal(dense[:, :2], expected)
