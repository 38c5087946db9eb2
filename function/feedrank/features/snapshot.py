"""Features from the bundle: memory-mapped tables and binary search.

The file is in the safetensors format: eight bytes of header length, a JSON header, raw arrays.
Pages are read when a look-up touches them, so a large table costs nothing at start.
"""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.bundle import documents
from feedrank.bundle.layout import SNAPSHOT
from feedrank.domain import BoolArray, FeatureRows, FloatArray, IntArray, Query
from feedrank.errors import BundleError
from feedrank.features.spec import FeatureSpec

HEADER_LENGTH_BYTES = 8
LARGEST_HEADER_BYTES = 1 << 20
LARGEST_SIZE = 1 << 48
DTYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "F32": np.dtype("<f4")}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by id. `ids` is (rows,) and ascending, `values` is (rows, columns)."""

    ids: IntArray
    values: FloatArray
    defaults: FloatArray  # (columns,)

    def row(self, id_: int) -> FloatArray | None:
        at = self.ids.searchsorted(id_)
        return self.values[at] if at < len(self.ids) and self.ids[at] == id_ else None

    def rows(self, wanted: IntArray) -> tuple[FloatArray, BoolArray]:
        """(wanted, columns) float32, and (wanted,) which of the ids no row has."""
        if not len(self.defaults):
            return np.empty((len(wanted), 0), dtype=np.float32), np.zeros(len(wanted), np.bool_)
        if not len(self.ids):
            defaults = np.broadcast_to(self.defaults, (len(wanted), len(self.defaults)))
            return defaults, np.ones(len(wanted), np.bool_)
        at = self.ids.searchsorted(wanted)
        unknown = self.ids.take(at, mode="clip") != wanted
        found = self.values.take(at, 0, mode="clip")
        if np.count_nonzero(unknown):
            np.copyto(found, self.defaults, where=unknown[:, np.newaxis])
        return found, unknown


class SnapshotStore:
    """User, item and pair tables as of the moment of training."""

    waits = False

    def __init__(self, source: Path | mmap.mmap, spec: FeatureSpec) -> None:
        tensors = read_safetensors(source)
        try:
            self._users = Table(
                tensors["users.ids"], tensors["users.values"], spec.defaults("user")
            )
            self._items = Table(
                tensors["items.ids"], tensors["items.values"], spec.defaults("item")
            )
            self._pair_users = tensors["pairs.users"]  # (users that have pairs,) ascending
            self._pair_starts = tensors["pairs.starts"]  # where each one's pairs begin; the end
            self._pairs = Table(
                tensors["pairs.items"],  # (pairs,) ascending for each user
                tensors["pairs.values"],
                spec.defaults("pair"),
            )
        except KeyError as error:
            raise BundleError(f"{SNAPSHOT}: lacks the array {error}") from error
        self._check_shapes()

    async def fetch(self, query: Query) -> FeatureRows:
        return self.look_up(query)

    def look_up(self, query: Query) -> FeatureRows:
        user = self._users.row(query.user_id)
        items, unknown_items = self._items.rows(query.item_ids)
        pairs, _ = self._pairs_of(query.user_id).rows(query.item_ids)
        return FeatureRows(
            user=self._users.defaults if user is None else user,
            items=items,
            pairs=pairs,
            unknown_user=user is None and len(self._users.defaults) > 0,
            unknown_items=unknown_items,
        )

    def _pairs_of(self, user_id: int) -> Table:
        users, pairs = self._pair_users, self._pairs
        at = users.searchsorted(user_id)
        known = at < len(users) and users[at] == user_id
        own = slice(*self._pair_starts[at : at + 2]) if known else slice(0)
        return Table(pairs.ids[own], pairs.values[own], pairs.defaults)

    def _check_shapes(self) -> None:
        for name, table in (("users", self._users), ("items", self._items), ("pairs", self._pairs)):
            if table.values.shape != (len(table.ids), len(table.defaults)):
                raise BundleError(
                    f"{SNAPSHOT}: {name}.values is {table.values.shape}, "
                    f"the spec needs {(len(table.ids), len(table.defaults))}"
                )
        starts, pairs = self._pair_starts, len(self._pairs.ids)
        if starts.shape != (len(self._pair_users) + 1,) or (starts[0], starts[-1]) != (0, pairs):
            raise BundleError(f"{SNAPSHOT}: pairs.starts does not divide {pairs} pairs by user")


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


def _entry(value: Any, place: str) -> Any:  # noqa: ANN401
    return (_METADATA if place.endswith(".__metadata__") else _ARRAY)(value, place)


_METADATA = documents.mapping(documents.text(), documents.text())
_ARRAY = documents.fields(
    {
        "dtype": documents.one_of(*DTYPES),
        "shape": documents.many(documents.whole(0, LARGEST_SIZE), most=2),
        "data_offsets": documents.many(documents.whole(0, LARGEST_SIZE), 2, 2),
    }
)
_HEADER = documents.mapping(documents.text(), _entry)
