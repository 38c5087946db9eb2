"""Rows of items that this container has read, so that a popular item isn't read for each request.

A partition of DynamoDB gives 3,000 reads a second at any price: an item that stands in most lists
can't be read each time.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import IntArray
from feedrank.features.packed_rows import Rows
from feedrank.features.row_sources import OPEN

OVERHEAD_BYTES = 160  # of a row: its id, its place among the others, three numbers


class CachedRows(NamedTuple):
    """For each id that was looked up. The rows of those whose source isn't CACHE mean nothing."""

    rows: Rows
    sources: NDArray[np.uint8]  # CACHE; UNKNOWN if the store has said that it has no such id; OPEN
    times_s: NDArray[np.float64]  # event times, in Unix seconds
    read_at_s: NDArray[np.float64]


class RowCache:
    """As many rows as fit; the oldest is replaced first. For one thread."""

    def __init__(self, dtype: np.dtype[Any], max_bytes: int) -> None:
        slots = max(1, max_bytes // (dtype.itemsize + OVERHEAD_BYTES))
        self._rows = np.zeros(slots, dtype)  # takes memory as it is filled
        self._sources = np.zeros(slots, np.uint8)
        self._times_s, self._read_at_s = np.zeros(slots), np.zeros(slots)
        self._slots: dict[int, int] = {}
        self._ids: list[int] = []  # by slot
        self._next = 0

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, ids: Sequence[int]) -> CachedRows:
        at: IntArray = np.fromiter(map(self._slots.get, ids, repeat(-1)), np.int64, len(ids))
        sources = self._sources.take(at, mode="clip")
        sources[at < 0] = OPEN
        return CachedRows(
            self._rows.take(at, mode="clip"),
            sources,
            self._times_s.take(at, mode="clip"),
            self._read_at_s.take(at, mode="clip"),
        )

    def put(
        self,
        ids: Sequence[int],
        rows: Rows,
        times_s: NDArray[np.float64],
        source: int,
        now_s: float,
    ) -> None:
        """`ids` are different ones. Of UNKNOWN ones `rows` may be anything."""
        count = len(self._rows)
        ids, rows, times_s = ids[-count:], rows[-count:], times_s[-count:]
        if not len(ids):
            return
        slots, at = self._slots, []
        for id_ in ids:  # one by one: a new one may take the place of another of these
            slot = slots.get(id_)
            at.append(self._new_slot(id_) if slot is None else slot)
        self._rows[at], self._times_s[at] = rows, times_s
        self._sources[at], self._read_at_s[at] = source, now_s

    def _new_slot(self, id_: int) -> int:
        slot, self._next = self._next, (self._next + 1) % len(self._rows)
        if slot < len(self._ids):
            del self._slots[self._ids[slot]]
            self._ids[slot] = id_
        else:
            self._ids.append(id_)
        self._slots[id_] = slot
        return slot
