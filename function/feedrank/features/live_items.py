"""Items' rows of a live store: the container's cache before it, and what stands in for a row."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import BoolArray, IntArray
from feedrank.features.live_rows import (
    Base,
    LiveLimits,
    LiveRows,
    Refusals,
    default_row,
    wrong_time,
)
from feedrank.features.packed_rows import RowLayout, Rows
from feedrank.features.row_cache import CachedRows, RowCache
from feedrank.features.row_sources import (
    CACHE,
    DEFAULTS,
    OLD_CACHE,
    SNAPSHOT,
    STORE,
    STORED,
    UNKNOWN,
)
from feedrank.features.spec import FeatureSpec
from feedrank.features.stored_rows import StoredRow

OPEN = 0  # for the next step
ABSENT, FAILED = -1, -2  # in place of a row's position


class Lookup(NamedTuple):
    """What the cache has of a request's items, and which of them the store is asked for."""

    items: Sequence[int]
    cached: CachedRows
    is_fresh: BoolArray  # (items,)
    missing: Sequence[int]  # each once


class SentRows(NamedTuple):
    """Of what the store has sent. `places` has, by id, the row's position, or ABSENT."""

    rows: Rows
    times_s: NDArray[np.float64]
    places: Mapping[int, int]
    refused: int


class LiveItems:
    def __init__(
        self, spec: FeatureSpec, layout: RowLayout, limits: LiveLimits, refusals: Refusals
    ) -> None:
        self._layout = layout
        self._default = default_row(spec, self._layout)
        self._cache = RowCache(self._layout.dtype, limits.cache_bytes)
        self._limits = limits
        self._refusals = refusals

    def find(self, items: Sequence[int], now_s: float) -> Lookup:
        cached = self._cache.find(items)
        is_fresh = cached.is_there & (now_s - cached.read_at_s < self._limits.cache_s)
        missing = [item for item, fresh in zip(items, is_fresh.tolist(), strict=True) if not fresh]
        return Lookup(items, cached, is_fresh, list(dict.fromkeys(missing)))

    def rows(
        self, lookup: Lookup, answers: Mapping[int, StoredRow | None], base: Base, now_s: float
    ) -> LiveRows:
        sent = self._check(answers, now_s)
        rows, sources, times_s = lookup.cached.rows, self._sources(lookup), lookup.cached.times_s
        asked = np.flatnonzero(~lookup.is_fresh)
        place_of = sent.places.get
        places: IntArray = np.array(
            [place_of(lookup.items[at], FAILED) for at in asked.tolist()], int
        )
        came = places >= 0
        rows[asked[came]] = sent.rows[places[came]]
        times_s[asked[came]] = sent.times_s[places[came]]
        sources[asked[came]] = STORE
        sources[asked[places == ABSENT]] = UNKNOWN
        is_old = now_s - times_s > self._limits.max_age_s
        sources[is_old & np.isin(sources, STORED)] = OPEN
        self._fall_back(rows, sources, times_s, base, now_s)
        blocks = {block: rows[block] for block in self._layout.blocks}
        return LiveRows({"item": blocks}, sources, times_s, sent.refused)

    def _check(self, answers: Mapping[int, StoredRow | None], now_s: float) -> SentRows:
        """Keeps what is right in the cache."""
        absent = [item for item, stored in answers.items() if stored is None]
        sent = {item: stored for item, stored in answers.items() if stored}
        rows, reasons = self._layout.unpack([stored.row for stored in sent.values()])
        times_s = np.array([stored.time_s for stored in sent.values()])
        good = []
        for at, (reason, time_s) in enumerate(zip(reasons, times_s.tolist(), strict=True)):
            if wrong := reason or wrong_time(time_s, now_s):
                self._refusals.note("item", wrong)
            else:
                good.append(at)
        items = [*sent]
        known = [items[at] for at in good]
        rows, times_s = rows[good], times_s[good]
        self._cache.put(known, rows, times_s, now_s)
        nothing = np.zeros(len(absent), self._layout.dtype)
        self._cache.put(absent, nothing, np.zeros(len(absent)), now_s, known=False)
        places = dict.fromkeys(absent, ABSENT) | {item: at for at, item in enumerate(known)}
        return SentRows(rows, times_s, places, len(sent) - len(good))

    def _sources(self, lookup: Lookup) -> NDArray[np.uint8]:
        """As far as the cache tells: what the store sends replaces the old ones."""
        cached = lookup.cached
        fresh = np.where(cached.is_known, CACHE, UNKNOWN)
        old = np.where(cached.is_there & cached.is_known, OLD_CACHE, OPEN)
        return np.where(lookup.is_fresh, fresh, old).astype(np.uint8)

    def _fall_back(
        self,
        rows: Rows,
        sources: NDArray[np.uint8],
        times_s: NDArray[np.float64],
        base: Base,
        now_s: float,
    ) -> None:
        """Fills the open rows from the snapshot, or with defaults."""
        is_open = sources == OPEN
        if is_open.any():
            is_usable = self._limits.allows(base.as_of_s, now_s)
            is_known = is_open & ~base.rows.unknown_items & is_usable
            for block, cells in base.blocks("item", base.rows.items).items():
                if block in self._layout.blocks:
                    rows[block][is_known] = cells[is_known]
            sources[is_known] = SNAPSHOT
            times_s[is_known] = base.as_of_s
            sources[is_open & ~is_known] = DEFAULTS
        rows[np.isin(sources, [DEFAULTS, UNKNOWN])] = self._default
