"""Numbers in Feast's format, compared with protobuf's own runtime and with the SDK's answers."""

import struct
from base64 import b64encode
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

import feast_rows
from feast_rows import FIELDS, VALUE
from feedrank.features.feast_values import NOT_A_TIME, NULL, OTHER, numbers_of

NUMBERS = {
    "int32_val": st.integers(-(2**31), 2**31 - 1),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "double_val": st.floats(),
    "float_val": st.floats(width=32),
    "bool_val": st.booleans(),
    "unix_timestamp_val": st.integers(NOT_A_TIME + 1, 2**63 - 1),
}
OTHERS = {"bytes_val": st.binary(max_size=40), "string_val": st.text(max_size=40)}


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _texts(fields: list[tuple[str, Any]]) -> list[str]:
    return [_text(VALUE(**{name: value}).SerializeToString()) for name, value in fields]


def _one_of(strategies: dict[str, Any]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.one_of([st.tuples(st.just(name), values) for name, values in strategies.items()])


@given(st.lists(_one_of(NUMBERS), max_size=30))
def test_numbers_are_what_protobuf_wrote(fields: list[tuple[str, Any]]) -> None:
    numbers = numbers_of(_texts(fields))
    for at, (name, value) in enumerate(fields):
        number = FIELDS[name][0]
        assert int(numbers.kinds[at]) >> 3 == number
        if name in {"double_val", "float_val"}:
            assert np.array_equal(numbers.floats[at], np.float64(value), equal_nan=True)
        else:
            assert (int(numbers.wholes[at]), numbers.floats[at]) == (value, float(value))


@given(st.lists(_one_of(NUMBERS | OTHERS), max_size=30))
def test_texts_and_bytes_are_no_numbers_and_spoil_none(fields: list[tuple[str, Any]]) -> None:
    numbers = numbers_of(_texts(fields))
    for at, (name, value) in enumerate(fields):
        if name in OTHERS:
            assert numbers.kinds[at] == OTHER
        else:
            assert np.array_equal(numbers.floats[at], np.float64(value), equal_nan=True)


@given(st.lists(st.floats(width=32), min_size=1, max_size=30))
def test_floats_alone_are_what_they_are_among_others(values: list[float]) -> None:
    texts = _texts([("float_val", value) for value in values])
    alone, among = numbers_of(texts), numbers_of([*texts, ""])
    for one, other in zip(alone, among, strict=True):
        assert np.array_equal(one, other[:-1], equal_nan=True)


@pytest.mark.parametrize("text", ["NQAAAAA=", "NQAAAAAA", "NQAAAA==", "KQAAAAA=", "NQAA=AA="])
def test_what_is_as_long_as_a_float_is_not_taken_for_one(text: str) -> None:
    one = _texts([("float_val", 1.5)])[0]
    try:
        kinds = numbers_of([one, text]).kinds.tolist()
    except ValueError:
        assert text == "NQAA=AA="
    else:
        assert (kinds[0], kinds[1] != OTHER) == (53, text == "NQAAAAA=")


def test_nulls_are_nulls() -> None:
    texts = _texts([("null_val", 0), ("unix_timestamp_val", NOT_A_TIME), ("int64_val", 0)])
    numbers = numbers_of(["", *texts])
    assert (numbers.kinds == NULL).tolist() == [True, True, True, False]
    assert numbers_of([]).kinds.shape == (0,)


@given(st.binary(max_size=20))
@example(b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")  # longer than a varint
@example(b"\x20\x80")
@example(b"\x35\x00\x00\x00")
@example(b"\x35\x00\x00\x00\x00\x00")
@example(b"\x29" + bytes(7))
@example(b"\x20")
@example(b"\x20\x01\x20\x02")  # two fields
@example(b"\x98\x01")
def test_bytes_are_a_number_only_where_protobuf_reads_the_same_one(data: bytes) -> None:
    numbers = numbers_of([_text(data)])
    kind = int(numbers.kinds[0])
    if kind == OTHER:
        return
    value = VALUE()
    value.ParseFromString(data)  # a DecodeError fails the test
    if kind == NULL:
        name = value.WhichOneof("val")
        assert name in {None, "null_val"} or value.unix_timestamp_val == NOT_A_TIME
        return
    name = value.WhichOneof("val")
    assert FIELDS[name][0] == kind >> 3
    read = getattr(value, name)
    number = numbers.wholes[0] if isinstance(read, int) else numbers.floats[0]
    if name == "int32_val":  # of a longer one protobuf keeps 32 bits
        number = np.int64(number).astype(np.int32)
    assert np.array_equal(number, read, equal_nan=isinstance(read, float))


@given(st.text(max_size=24))
@example("A")
@example("A===")
@example("NQ==AAAA")
@example("NQAAAAA")  # without its padding
@example("N\x00AA")
def test_a_text_that_is_not_base64_is_refused_or_is_what_base64_says(text: str) -> None:
    try:
        numbers = numbers_of([text])
    except ValueError:
        return
    if numbers.kinds[0] in {NULL, OTHER}:
        return
    padded = text + "=" * (-len(text) % 4)  # which says no more than the length does
    again = numbers_of([padded])
    assert np.array_equal(numbers.floats, again.floats, equal_nan=True)


def test_the_sdks_own_bytes_are_read_as_the_sdk_reads_them() -> None:
    read = 0
    for answer in (feast_rows.USERS, feast_rows.ITEMS, feast_rows.CODES):
        for reference in answer["features"]:
            for _, item, expected in feast_rows.answers(answer, reference):
                if item is None:
                    assert expected is None
                    continue
                value = item["values"]["M"][reference.partition(":")[2]]["B"]
                numbers = numbers_of([value])
                if expected is None:
                    assert numbers.kinds[0] == NULL
                else:
                    assert numbers.floats[0] == expected
                read += 1
    assert read == 66


def test_infinities_and_nan_come_through_for_the_checks_behind() -> None:
    texts = [_text(b"\x29" + struct.pack("<d", value)) for value in (inf, -inf, nan)]
    floats = numbers_of(texts).floats.tolist()
    assert (floats[:2], isnan(floats[2])) == ([inf, -inf], True)


def test_a_truncated_message_is_no_message_of_protobufs_either() -> None:
    with pytest.raises(DecodeError):
        VALUE().ParseFromString(b"\x35\x00")
    assert numbers_of([_text(b"\x35\x00")]).kinds.tolist() == [OTHER]
