"""Feast's rows as cells: whatever a row holds, a cell is what protobuf's runtime reads or the
default of a null, or its row is refused."""

import string
from base64 import b64decode, b64encode
from math import isinf, isnan, nan
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from feast_rows import VALUE
from feedrank.features.feast_rows import NO_ROW, feast_layout
from feedrank.features.feast_values import NOT_A_TIME
from feedrank.features.spec_reader import parse_spec

DIGITS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
LIMIT = 1e6  # of f
DEFAULTS = {"f": -1.0, "n": None, "w": -7, "t": None}
SPEC = parse_spec(
    {
        "inputs": [
            {
                "name": "x",
                "limits": {"f": [[-LIMIT, LIMIT]]},
                "features": [
                    {"name": "f", "source": "item", "default": DEFAULTS["f"]},
                    {"name": "n", "source": "item", "default": DEFAULTS["n"]},
                    {"name": "t", "source": "item", "expression": "since(t)"},
                ],
            },
            {
                "name": "w",
                "type": "int64",
                "features": [{"name": "w", "source": "item", "default": DEFAULTS["w"]}],
            },
        ],
        "feast": {
            "views": {"one": {"join_key": "item_id"}, "two": {"join_key": "item_id"}},
            "features": {"f": "one:f", "w": "one:w", "n": "two:n", "t": "two:t"},
        },
    }
)
LAYOUT = feast_layout(SPEC, "item")
VIEWS = {"f": 0, "w": 0, "n": 1, "t": 1}
WHOLE = {"int32_val", "int64_val", "bool_val"}
FIELDS = {  # that a feature may have
    "f": WHOLE | {"float_val", "double_val"},
    "n": WHOLE | {"float_val", "double_val"},
    "w": WHOLE,
    "t": {"unix_timestamp_val", "int32_val", "int64_val", "double_val"},
}
EARLIEST_S, LATEST_S = -62_135_596_800.0, 253_402_300_799.0
_values = st.one_of(
    st.builds(lambda v: VALUE(float_val=v), st.floats(width=32)),
    st.builds(lambda v: VALUE(float_val=v), st.floats(-1e7, 1e7, width=32)),
    st.builds(lambda v: VALUE(double_val=v), st.floats()),
    st.builds(lambda v: VALUE(int32_val=v), st.integers(-(2**31), 2**31 - 1)),
    st.builds(lambda v: VALUE(int64_val=v), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: VALUE(int64_val=v), st.integers(-10, 10)),
    st.builds(lambda v: VALUE(bool_val=v), st.booleans()),
    st.builds(lambda v: VALUE(unix_timestamp_val=v), st.integers(0, 2_000_000_000)),
    st.builds(lambda v: VALUE(string_val=v), st.text(max_size=4)),
    st.just(VALUE()),
    st.just(VALUE(unix_timestamp_val=NOT_A_TIME)),
).map(lambda value: value.SerializeToString())
_damaged = st.builds(
    lambda data, end, more: data[:end] + more, _values, st.integers(0, 10), st.binary(max_size=2)
)
_data = st.one_of(_values, _values, _values, _damaged, st.binary(max_size=13))
_texts = st.builds(
    lambda data, bits: _with_bits(b64encode(data).decode(), bits), _data, st.integers(0, 3)
)
_cells = _texts.map(lambda text: {"B": text})
_wrong = st.sampled_from([None, {"S": "x"}, {"B": 1}, {"B": "?"}, {"B": None}, "x", {}])
_view = st.one_of(st.just(NO_ROW), st.dictionaries(st.sampled_from("fwnt"), _cells))


def _with_bits(text: str, bits: int) -> str:
    """With bits in the last digit that no byte has: other decoders ignore them."""
    end = len(text.rstrip("="))
    if end == len(text):
        return text
    return text[: end - 1] + DIGITS[DIGITS.index(text[end - 1]) | bits] + text[end:]


def _full(names: str) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(dict.fromkeys(names, _cells))


_rows = st.one_of(
    st.tuples(_full("fw"), _full("nt")),
    st.tuples(_full("fw"), st.just(NO_ROW)),
    st.tuples(_view, _view),
    st.tuples(st.fixed_dictionaries({"f": _cells, "w": _wrong}), _full("nt")),
)


def _expected(name: str, view: Any) -> float | int | None:
    """The cell, None where the row has to be refused."""
    default = nan if DEFAULTS[name] is None else DEFAULTS[name]
    if view is NO_ROW:
        return default
    try:
        text = view[name]["B"]
        value = VALUE()
        value.ParseFromString(b64decode(text, validate=True))
    except (KeyError, TypeError, ValueError, DecodeError):
        return None
    field = value.WhichOneof("val")
    if field in {None, "null_val"} or value.unix_timestamp_val == NOT_A_TIME:
        return default
    return _cell(name, getattr(value, field)) if field in FIELDS[name] else None


def _cell(name: str, number: float) -> float | int | None:
    if name == "w":
        return int(number)
    if name == "t":
        return float(number) if EARLIEST_S <= number <= LATEST_S or isnan(number) else None
    with np.errstate(over="ignore"):
        cell = float(np.float32(number))
    is_right = not isinf(cell) if name == "n" else abs(cell) <= LIMIT  # NaN is n's default
    return cell if is_right else None


@given(st.lists(_rows, max_size=12))
def test_a_cell_is_what_protobuf_reads_or_its_row_is_refused(stored: list[Any]) -> None:
    rows, reasons = LAYOUT.unpack(stored)
    for row, reason, views in zip(rows, reasons, stored, strict=True):
        expected = {name: _expected(name, views[at]) for name, at in VIEWS.items()}
        if reason:
            # protobuf takes what the SDK never writes: fields twice, unknown ones.
            assert None in expected.values() or _is_unusual(views)
            continue
        assert None not in expected.values()
        cells = {
            "f": row["values"][0],
            "n": row["values"][1],
            "w": row["integers"][0],
            "t": row["times"][0],
        }
        for name, cell in expected.items():
            assert np.array_equal(cells[name], cell, equal_nan=True), name


def _is_unusual(views: Any) -> bool:
    """A value is not what protobuf would write for what it has read."""
    for view in views:
        for cell in [] if view is NO_ROW else view.values():
            value, data = VALUE(), b64decode(cell["B"])
            value.ParseFromString(data)
            if value.SerializeToString() != data or len(UnknownFieldSet(value)):
                return True
    return False
