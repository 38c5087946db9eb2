"""Numbers in Feast's format, `feast.types.Value`, a thousand in one pass.

https://github.com/feast-dev/feast/blob/v0.66.0/protos/feast/types/Value.proto

A value is a message with one field: a byte that names the field and its encoding, then the number
as four bytes (float), eight (double) or a varint. A null is a message without a field. protobuf's
runtime parses one message at a time into a Python object, which takes several times as long.
"""

from binascii import a2b_base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import BoolArray, IntArray

# The first byte: the field's number, then how it is encoded.
INT32, INT64, BOOL, TIME = 3 << 3, 4 << 3, 7 << 3, 8 << 3  # as varints
DOUBLE, FLOAT = 5 << 3 | 1, 6 << 3 | 5
NULL, OTHER = 0, 255  # no field has these
WHOLE = np.isin(np.arange(256), [INT32, INT64, BOOL, TIME])
NULL_FIELD = [0x98, 0x01, 0x00]  # `null_val`, which takes two bytes to name

FLOAT_CHARACTERS = 8  # the last one is =
FLOAT_CELL = np.dtype([("kind", "u1"), ("number", "<f4"), ("padding", "u1")])
CELL_CHARACTERS, CELL_BYTES = 16, 12  # a varint of ten bytes, and the byte that names its field
PADDING, ZERO_BITS = b"=A"  # "A" is six zero bits
NOT_A_TIME = np.iinfo(np.int64).min  # what pandas has for a time that is missing
SEVEN_BITS = np.arange(0, 70, 7, dtype=np.uint64)[:, np.newaxis]  # (bytes, 1)
MORE = np.uint8(0x80)  # in each byte of a varint but the last
PLACES = np.arange(len(SEVEN_BITS))[:, np.newaxis]


class Numbers(NamedTuple):
    """(texts,) each. `kinds` says which field a value has: NULL for none, OTHER for one that is not
    a number. Only a whole number is in `wholes`; `floats` has all."""

    kinds: NDArray[np.uint8]
    floats: NDArray[np.float64]
    wholes: IntArray


def numbers_of(texts: Sequence[str]) -> Numbers:
    """Of base64, as DynamoDB's JSON has it. Raises ValueError where one is not base64."""
    return _only_floats(texts) or _of_any_kind(texts)


def _only_floats(texts: Sequence[str]) -> Numbers | None:
    """As most features are: half the time. None where one of them is something else."""
    if {*map(len, texts)} != {FLOAT_CHARACTERS}:
        return None
    joined = "".join(texts)
    ends = joined[FLOAT_CHARACTERS - 1 :: FLOAT_CHARACTERS]
    if not len(texts) == joined.count("=") == ends.count("="):
        return None
    data = a2b_base64(joined.replace("=", "A"), strict_mode=True)
    cells = np.frombuffer(data, FLOAT_CELL)
    if (cells["kind"] != FLOAT).any():
        return None
    floats = cells["number"].astype(np.float64)
    return Numbers(cells["kind"], floats, np.zeros(len(texts), np.int64))


def _of_any_kind(texts: Sequence[str]) -> Numbers:
    cells, sizes, is_long = _cells(texts)
    kinds = cells[:, 0].copy()
    wholes = np.zeros(len(texts), np.int64)
    floats = np.zeros(len(texts))
    is_whole = WHOLE[kinds]
    kinds[~(is_whole | (kinds == FLOAT) | (kinds == DOUBLE))] = OTHER
    _read_fixed(FLOAT, kinds, cells, sizes, floats)
    _read_fixed(DOUBLE, kinds, cells, sizes, floats)
    if is_whole.any():
        _read_varints(np.flatnonzero(is_whole), kinds, cells, sizes, wholes)
        np.copyto(floats, wholes, where=is_whole)
    kinds[is_long] = OTHER
    kinds[sizes == 0] = NULL
    of_null = np.flatnonzero(sizes == len(NULL_FIELD))
    kinds[of_null[(cells[of_null, : len(NULL_FIELD)] == NULL_FIELD).all(1)]] = NULL
    return Numbers(kinds, floats, wholes)


def _cells(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], BoolArray]:
    """(texts, CELL_BYTES) bytes, zeros behind the last one; how many each has; and whether a text
    has more than a number can have."""
    characters = np.array(texts, f"S{CELL_CHARACTERS + 1}").view(np.uint8)
    characters = characters.reshape(-1, CELL_CHARACTERS + 1)
    is_long = characters[:, CELL_CHARACTERS] != 0
    characters = characters[:, :CELL_CHARACTERS]
    is_filler = (characters == PADDING) | (characters == 0)
    by_place = np.ascontiguousarray(is_filler.T)
    lengths = CELL_CHARACTERS - np.add.reduce(by_place, 0, dtype=np.uint8)
    if (by_place[:-1] > by_place[1:]).any() or (lengths & 3 == 1).any():
        raise ValueError("not base64")
    data = a2b_base64(np.where(is_filler, ZERO_BITS, characters).tobytes(), strict_mode=True)
    cells = np.frombuffer(data, np.uint8).reshape(-1, CELL_BYTES)
    return cells, lengths * 3 >> 2, is_long


def _read_fixed(
    kind: int,
    kinds: NDArray[np.uint8],
    cells: NDArray[np.uint8],
    sizes: NDArray[np.uint8],
    floats: NDArray[np.float64],
) -> None:
    """Puts the numbers of this kind into `floats`; of one of another size the kind is OTHER."""
    at = np.flatnonzero(kinds == kind)
    if len(at):
        dtype = np.dtype("<f4" if kind == FLOAT else "<f8")
        end = 1 + dtype.itemsize
        floats[at] = cells[at, 1:end].view(dtype)[:, 0]
        kinds[at[sizes[at] != end]] = OTHER


def _read_varints(
    at: IntArray,
    kinds: NDArray[np.uint8],
    cells: NDArray[np.uint8],
    sizes: NDArray[np.uint8],
    wholes: IntArray,
) -> None:
    """Puts those numbers into `wholes`; of one of another size the kind is OTHER."""
    data = np.ascontiguousarray(cells[at, 1 : 1 + len(SEVEN_BITS)].T)  # (bytes, numbers)
    ends = (data < MORE).argmax(0)  # the last byte is the first one below 128
    parts = (data & ~MORE).astype(np.uint64) << SEVEN_BITS
    parts[ends < PLACES] = 0
    numbers = np.bitwise_or.reduce(parts, 0).view(np.int64)
    kinds[at[ends + 2 != sizes[at]]] = OTHER
    is_time, is_flag = kinds[at] == TIME, kinds[at] == BOOL
    kinds[at[is_time & (numbers == NOT_A_TIME)]] = NULL
    wholes[at] = np.where(is_flag, numbers != 0, numbers)
