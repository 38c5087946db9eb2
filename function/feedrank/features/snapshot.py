"""Features from the bundle: memory-mapped tables and binary search.

The file is in the safetensors format: eight bytes of header length, a JSON header, raw arrays.
Pages are read when a look-up touches them, so a large table costs nothing at start.
"""

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.bundle import documents
from feedrank.bundle.layout import SNAPSHOT
from feedrank.domain import BoolArray, FeatureRows, IntArray, Query
from feedrank.errors import BundleError
from feedrank.features.spec import Block, FeatureSpec, Source
from feedrank.features.vocabulary import Vocabulary, keys_of, text_key

HEADER_LENGTH_BYTES = 8
LARGEST_HEADER_BYTES = 1 << 20
LARGEST_SIZE = 1 << 48
DTYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
NAMES: Mapping[Source, str] = {"user": "users", "item": "items", "pair": "pairs"}
Blocks = dict[Block, NDArray[Any]]
NO_BLOCKS: Blocks = {}
LARGE_ROWS = 200_000  # from here on a binary search waits for memory
BLOCK_ROWS = 16  # whose ids are two cache lines
ALL_ROWS, NO_ROWS = slice(None), slice(0)
TYPES: Mapping[Block, str] = {"values": "f", "integers": "i", "times": "f", "halves": "f"}


class Cells(NamedTuple):
    """`rows` is (rows, columns), `defaults` (columns,) stands in for a row that isn't there."""

    rows: NDArray[Any]
    defaults: NDArray[Any]

    def one(self, at: int | None) -> NDArray[Any]:
        """(columns,)"""
        return self.defaults if at is None else self.rows[at]

    def many(self, at: IntArray, own: slice, unknown: BoolArray, gaps: int) -> NDArray[Any]:
        """(at, columns), counted from the first of the `own` rows."""
        rows = self.rows[own].take(at, 0, mode="clip")
        if gaps:
            np.copyto(rows, self.defaults, where=unknown[:, np.newaxis])
        return rows

    def missing(self, rows: int) -> NDArray[Any]:
        """(rows, columns)"""
        return self.defaults[np.newaxis].repeat(rows, 0)


class BlockIndex:
    """Where ids of a large table are: a search among every sixteenth of them, which stay in the
    cache, then one look at sixteen. A hundred ids of a million take half the time of a search among
    all of them, and the copy a third of a millisecond at init."""

    def __init__(self, ids: IntArray) -> None:
        whole = len(ids) // BLOCK_ROWS * BLOCK_ROWS
        self._firsts = ids[:whole:BLOCK_ROWS].copy()
        self._blocks = ids[:whole].reshape(-1, BLOCK_ROWS)
        self._rest = ids[whole:]

    def searchsorted(self, ids: IntArray) -> IntArray:
        """(ids,) the position of each that is there."""
        block = self._firsts.searchsorted(ids, "right") - 1
        within = self._blocks.take(block, 0, mode="clip") < ids[:, np.newaxis]
        at: IntArray = block * BLOCK_ROWS + within.sum(1) + self._rest.searchsorted(ids)
        return at


class Table:
    """Rows by id. `ids` is (rows,) and ascending. A block that the spec doesn't need has no
    columns, or, of all but `values`, isn't there. An `index` is for look-ups in all rows."""

    def __init__(
        self,
        ids: IntArray,
        values: Cells,
        others: Mapping[Block, Cells],
        index: BlockIndex | None = None,
    ) -> None:
        self.ids, self.values, self.others, self.index = ids, values, others, index
        self.has_columns = len(values.defaults) > 0 or bool(others)
        self._unknown_row = np.array([self.has_columns])  # where there are no rows

    def find(self, id_: int) -> int | None:
        at = int(self.ids.searchsorted(id_))
        return at if at < len(self.ids) and self.ids[at] == id_ else None

    def find_all(self, ids: IntArray, own: slice) -> tuple[NDArray[Any], BoolArray, Blocks]:
        """(ids, columns) of `values`, (ids,) which of them have no row, and the other blocks, where
        only the table's `own` rows count."""
        own_ids = self.ids[own]
        if not len(own_ids) or not self.has_columns:
            others = {block: cells.missing(len(ids)) for block, cells in self.others.items()}
            return self.values.missing(len(ids)), self._unknown_row.repeat(len(ids)), others
        at = (self.index or own_ids).searchsorted(ids)
        unknown = own_ids.take(at, mode="clip") != ids
        gaps = int(np.count_nonzero(unknown))
        others = NO_BLOCKS
        if self.others:
            others = {b: cells.many(at, own, unknown, gaps) for b, cells in self.others.items()}
        return self.values.many(at, own, unknown, gaps), unknown, others


class SnapshotStore:
    """User, item and pair tables as of the moment of training."""

    waits = False

    def __init__(
        self, source: Path | mmap.mmap, spec: FeatureSpec, as_of_s: float = -math.inf
    ) -> None:
        """`as_of_s` is the moment that the tables describe, in Unix seconds."""
        self.as_of_s = as_of_s
        tensors = read_safetensors(source)
        try:
            self._users = _table(tensors, spec, "user", "users.ids")
            self._items = _table(tensors, spec, "item", "items.ids")
            self._pairs = _table(tensors, spec, "pair", "pairs.items")  # ascending for each user
            self._pair_users = tensors["pairs.users"]  # (users that have pairs,) ascending
            self._pair_starts = tensors["pairs.starts"]  # where each one's pairs begin; the end
            self.vocabularies = {
                name: Vocabulary(
                    tensors[f"vocabulary.{name}.keys"], tensors[f"vocabulary.{name}.indices"]
                )
                for name in spec.request_vocabularies()
            }
        except KeyError as error:
            raise BundleError(f"{SNAPSHOT}: lacks the array {error}") from error
        self._check_pairs()
        self._check_vocabularies()

    async def fetch(self, query: Query, _deadline_s: float) -> FeatureRows:
        return self.look_up(query)

    def look_up(self, query: Query) -> FeatureRows:
        item_ids = keys_of(query.item_ids)
        user_id = text_key(query.user_id) if isinstance(query.user_id, str) else query.user_id
        users = self._users
        at = users.find(user_id)
        items, unknown_items, of_items = self._items.find_all(item_ids, ALL_ROWS)
        pairs, _, of_pairs = self._pairs.find_all(item_ids, self._pairs_of(user_id))
        rows = FeatureRows(
            user=users.values.one(at),
            items=items,
            pairs=pairs,
            unknown_user=at is None and users.has_columns,
            unknown_items=unknown_items,
        )
        if not (users.others or of_items or of_pairs):
            return rows
        of_user = {block: cells.one(at) for block, cells in users.others.items()}
        parts = {"user": of_user, "item": of_items, "pair": of_pairs}
        others: dict[tuple[str, str], NDArray[Any]] = {
            (source, block): cells
            for source, part in parts.items()
            for block, cells in part.items()
        }
        return rows._replace(others=others)

    def _pairs_of(self, user_id: int) -> slice:
        if not self._pairs.has_columns:
            return NO_ROWS
        users = self._pair_users
        at = users.searchsorted(user_id)
        known = at < len(users) and users[at] == user_id
        return slice(*self._pair_starts[at : at + 2]) if known else NO_ROWS

    def _check_pairs(self) -> None:
        starts, pairs = self._pair_starts, len(self._pairs.ids)
        if starts.shape != (len(self._pair_users) + 1,) or (starts[0], starts[-1]) != (0, pairs):
            raise BundleError(f"{SNAPSHOT}: pairs.starts does not divide {pairs} pairs by user")

    def _check_vocabularies(self) -> None:
        for name, vocabulary in self.vocabularies.items():
            if vocabulary.keys.shape != vocabulary.indices.shape or vocabulary.keys.ndim != 1:
                raise BundleError(f"{SNAPSHOT}: vocabulary.{name}: keys and indices differ in size")


def _table(
    tensors: Mapping[str, NDArray[Any]], spec: FeatureSpec, source: Source, ids: str
) -> Table:
    """Raises KeyError for an array that isn't there, BundleError for one of another shape."""
    name = NAMES[source]
    rows = len(tensors[ids])
    blocks: dict[Block, Cells] = {}
    for block, defaults in default_cells(spec, source).items():
        if block != "values" and not len(defaults):
            continue
        cells = Cells(tensors[f"{name}.{block}"], defaults)
        if cells.rows.shape != (rows, len(defaults)) or cells.rows.dtype.kind != TYPES[block]:
            raise BundleError(
                f"{SNAPSHOT}: {name}.{block} is {cells.rows.shape} of {cells.rows.dtype}, the spec "
                f"needs {(rows, len(defaults))}"
            )
        if not np.array_equal(defaults.astype(cells.rows.dtype), defaults, equal_nan=True):
            raise BundleError(f"{SNAPSHOT}: {name}.{block} can't hold the spec's defaults")
        blocks[block] = cells
    is_searched = source == "item" and rows >= LARGE_ROWS  # of the others one row, or one user's
    index = BlockIndex(tensors[ids]) if is_searched else None
    return Table(tensors[ids], blocks.pop("values"), blocks, index)


def default_cells(spec: FeatureSpec, source: Source) -> dict[Block, NDArray[Any]]:
    """A time that isn't known is NaN; what it becomes in days is the default."""
    return {
        "values": spec.defaults(source),
        "integers": spec.integer_defaults(source),
        "times": np.full(len(spec.block(source, "times")), np.nan),
        "halves": spec.defaults(source, "halves").astype(np.float16),
    }


def read_safetensors(source: Path | mmap.mmap) -> dict[str, NDArray[Any]]:
    """Map a safetensors file; the arrays are read-only views of it. Raises BundleError."""
    try:
        data = _mapped(source) if isinstance(source, Path) else source
        start = HEADER_LENGTH_BYTES + int.from_bytes(data[:HEADER_LENGTH_BYTES], "little")
        if not HEADER_LENGTH_BYTES < start <= min(len(data), LARGEST_HEADER_BYTES):
            raise BundleError(f"{SNAPSHOT}: its header can't have {start} bytes")
        header = documents.read(data[HEADER_LENGTH_BYTES:start], SNAPSHOT, _HEADER)
        header.pop("__metadata__", None)
        return {name: _array(data, start, name, entry) for name, entry in header.items()}
    except (OSError, ValueError) as error:
        raise BundleError(f"{SNAPSHOT}: not a feature snapshot: {error!r}") from error


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _array(data: mmap.mmap, start: int, name: str, entry: dict[str, Any]) -> NDArray[Any]:
    dtype, shape, (first, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if end - first != count * dtype.itemsize or start + end > len(data):
        raise BundleError(f"{SNAPSHOT}: {name} does not fill bytes {first} to {end} of the file")
    values: NDArray[Any] = np.frombuffer(data, dtype, count, start + first)
    return values.reshape(shape)


def _entry(value: documents.Json, place: str) -> documents.Json:
    return (_METADATA if place.endswith(".__metadata__") else _ARRAY)(value, place)


_METADATA = documents.mapping(documents.text(), documents.text())
_ARRAY = documents.fields(
    {
        "dtype": documents.one_of(*DTYPES),
        "shape": documents.many(documents.whole(0, LARGEST_SIZE), maximum=2),
        "data_offsets": documents.many(documents.whole(0, LARGEST_SIZE), 2, 2),
    }
)
_HEADER = documents.mapping(documents.text(), _entry)
