"""A row of a store: a source's cells as bytes, laid out by the spec.

Behind four bytes that tell of which layout the row is stand its blocks: times (float64, Unix
seconds), integers (int64), values (float32) and halves (float16), little-endian, in the order of
`FeatureSpec.block`. A user's pairs are one packed list: four such bytes, then each pair's item id
(int64) and blocks, ascending by id.

Whoever can write to a store can write any bytes, so rows are checked here: a row is whole, of this
layout, with numbers that the model takes, or it is refused with a reason.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import BoolArray
from feedrank.errors import SpecError
from feedrank.features.spec import Block, Feature, FeatureSpec, Source

BLOCKS: Mapping[Block, str] = {"times": "<f8", "integers": "<i8", "values": "<f4", "halves": "<f2"}
FORMAT = 1  # of the bytes; another one makes another layout
MARK = "layout"
ITEM = "item"
MARK_BYTES = 4
# Of years 1 to 9999, in Unix seconds.
TIMES = (np.array(-62_135_596_800.0), np.array(253_402_300_799.0))
NO_LIMITS: tuple[float | None, float | None] = (None, None)
Rows = NDArray[Any]  # of a layout's `dtype`

WIDTH, OTHER_LAYOUT = "width", "layout"
NUMBER, RANGE, ORDER = "not a number", "range", "order"


class _Bounds(NamedTuple):
    """What the cells of one block may be, (columns,)."""

    may_be_nan: BoolArray
    limits: tuple[NDArray[Any], NDArray[Any]] | None  # the smallest and the largest


class RowLayout:
    """How rows of one source are laid out."""

    def __init__(self, spec: FeatureSpec, source: Source) -> None:
        self.source = source
        self.blocks: tuple[Block, ...] = tuple(b for b in BLOCKS if spec.block(source, b))
        fields: list[Any] = [
            (block, BLOCKS[block], (_columns(spec, source, block),)) for block in self.blocks
        ]
        self.dtype = np.dtype([(MARK, "<u4"), *fields])
        self.pair_dtype = np.dtype([(ITEM, "<i8"), *fields])
        self.mark = _mark(spec, source)
        self._bounds = {block: _bounds(spec, source, block) for block in self.blocks}

    def unpack(self, packed: Sequence[bytes]) -> tuple[Rows, list[str]]:
        """(packed,) rows, and for each why it is refused, empty where it isn't. The cells of a
        refused row mean nothing."""
        width, reasons = self.dtype.itemsize, [""] * len(packed)
        if {*map(len, packed)} - {width}:
            reasons = ["" if len(row) == width else WIDTH for row in packed]
            packed = [row if len(row) == width else bytes(width) for row in packed]
        rows: Rows = np.frombuffer(b"".join(packed), self.dtype)
        if not self._are_valid(rows):
            for at, reason in enumerate(reasons):
                reasons[at] = reason or self._reason(rows[at : at + 1])
        return rows, reasons

    def unpack_pairs(self, data: bytes) -> tuple[Rows, str]:
        """(pairs,) of `pair_dtype`, and why they are refused, empty where they aren't."""
        nothing = np.empty(0, self.pair_dtype)
        if len(data) < MARK_BYTES or (len(data) - MARK_BYTES) % self.pair_dtype.itemsize:
            return nothing, WIDTH
        if int.from_bytes(data[:MARK_BYTES], "little") != self.mark:
            return nothing, OTHER_LAYOUT
        pairs: Rows = np.frombuffer(data, self.pair_dtype, offset=MARK_BYTES)
        ids = pairs[ITEM]
        if len(ids) and (ids[0] < 0 or not (ids[1:] > ids[:-1]).all()):
            return nothing, ORDER
        reason = self._wrong_cells(pairs)
        return (nothing if reason else pairs), reason

    def _are_valid(self, rows: Rows) -> bool:
        return bool((rows[MARK] == self.mark).all()) and not self._wrong_cells(rows)

    def _reason(self, row: Rows) -> str:
        return OTHER_LAYOUT if row[MARK][0] != self.mark else self._wrong_cells(row)

    def _wrong_cells(self, rows: Rows) -> str:
        for block, bounds in self._bounds.items():
            cells = rows[block]
            if block != "integers":
                is_number = np.isfinite(cells)
                if (
                    not is_number.all()
                    and not (is_number | (np.isnan(cells) & bounds.may_be_nan)).all()
                ):
                    return NUMBER
            if bounds.limits:
                smallest, largest = bounds.limits
                if ((cells < smallest) | (cells > largest)).any():
                    return RANGE
        return ""


def check_storable(spec: FeatureSpec, source: Source) -> None:
    """Raises SpecError where a row can't say by itself what its cells mean, or whether the model
    takes them."""
    for feature in spec.columns(source):
        place = f"feature spec: {feature.name} of a {source}"
        if feature.vocabulary:
            raise SpecError(
                f"{place} has a vocabulary, whose numbers may mean other texts after the next "
                "training: leave this source to the snapshot"
            )
        if feature.is_time and any(input_.limits.get(feature.name) for input_ in spec.inputs):
            raise SpecError(f"{place} is a time that has limits: leave this source to the snapshot")


def _columns(spec: FeatureSpec, source: Source, block: Block) -> int:
    return sum(feature.width for feature in spec.block(source, block))


def _mark(spec: FeatureSpec, source: Source) -> int:
    """Of everything that gives the bytes their meaning: two layouts that differ have other marks,
    but for one chance in four billion."""
    parts = [str(FORMAT), spec.ids, source]
    for block in BLOCKS:
        parts += [f"{block} {f.size} {f.column}" for f in spec.block(source, block)]
    digest = blake2b("\n".join(parts).encode(), digest_size=MARK_BYTES).digest()
    return int.from_bytes(digest, "little")


def _bounds(spec: FeatureSpec, source: Source, block: Block) -> _Bounds:
    """An unknown time is NaN; of other cells those may be whose default is."""
    features = spec.block(source, block)
    if block == "times":
        return _Bounds(np.ones(len(features), bool), TIMES)
    may_be_nan = np.isnan([cell for feature in features for cell in feature.default_cells])
    pairs = [pair for feature in features for pair in _limits(spec, feature)]
    if all(pair == NO_LIMITS for pair in pairs):
        return _Bounds(may_be_nan, None)
    dtype = np.dtype(BLOCKS[block])
    ends = np.iinfo(dtype) if dtype.kind == "i" else np.finfo(dtype)
    cell = np.int64 if dtype.kind == "i" else np.float64
    smallest = [ends.min if low is None else low for low, _ in pairs]
    largest = [ends.max if high is None else high for _, high in pairs]
    return _Bounds(may_be_nan, (np.array(smallest, cell), np.array(largest, cell)))


def _limits(spec: FeatureSpec, feature: Feature) -> list[tuple[float | None, float | None]]:
    """Of each cell, in all inputs that read it."""
    limits = [NO_LIMITS] * feature.width
    for of_input in filter(None, (input_.limits.get(feature.name) for input_ in spec.inputs)):
        limits = [
            (_tighter(max, low, limit[0]), _tighter(min, high, limit[1]))
            for (low, high), limit in zip(limits, of_input, strict=True)
        ]
    return limits


def _tighter(
    choose: Callable[[list[float]], float], one: float | None, other: float | None
) -> float | None:
    known = [end for end in (one, other) if end is not None]
    return choose(known) if known else None
