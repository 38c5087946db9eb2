"""Items' rows of a live store: the container's cache before it, and what stands in for a row."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import IntArray
from feedrank.features.live_rows import (
    WRONG_TIME,
    Base,
    LiveLimits,
    LiveRows,
    Refusals,
    default_row,
    is_right_time,
)
from feedrank.features.packed_rows import RowLayout, Rows
from feedrank.features.row_cache import CachedRows, RowCache
from feedrank.features.row_sources import (
    CACHE,
    DEFAULTS,
    IS_DEFAULT,
    IS_STORED,
    OLD_CACHE,
    OPEN,
    SNAPSHOT,
    STORE,
    UNKNOWN,
)
from feedrank.features.spec import FeatureSpec
from feedrank.features.stored_rows import StoredRow

ABSENT, FAILED = -1, -2  # in place of a row's position
# What a row in the cache is when it is beyond its time, and the store has not sent another.
WHEN_OLD = np.zeros(256, np.uint8)
WHEN_OLD[CACHE] = OLD_CACHE


class Lookup(NamedTuple):
    """What the cache has of a request's items, and which of them the store is asked for."""

    items: Sequence[int]
    cached: CachedRows  # its sources as they are where the store sends nothing
    asked: IntArray  # positions in `items`
    missing: Sequence[int]  # the items there, each once


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
        is_old = (cached.sources == OPEN) | ~(now_s - cached.read_at_s < self._limits.cache_s)
        asked = np.flatnonzero(is_old)
        cached.sources[asked] = WHEN_OLD[cached.sources[asked]]
        return Lookup(items, cached, asked, list({items[at]: None for at in asked.tolist()}))

    def rows(
        self, lookup: Lookup, answers: Mapping[int, StoredRow | None], base: Base, now_s: float
    ) -> LiveRows:
        rows, sources, times_s, _ = lookup.cached
        refused = self._take(lookup, answers, now_s) if answers else 0
        is_old = now_s - times_s > self._limits.max_age_s
        sources[is_old & IS_STORED[sources]] = OPEN
        self._fall_back(lookup.cached, base, now_s)
        blocks = {block: rows[block] for block in self._layout.blocks}
        return LiveRows({"item": blocks}, sources, times_s, refused)

    def _take(self, lookup: Lookup, answers: Mapping[int, StoredRow | None], now_s: float) -> int:
        """Puts what the store has sent in the place of what the cache had. The number of rows that
        are refused."""
        sent, asked = self._check(answers, now_s), lookup.asked
        rows, sources, times_s, _ = lookup.cached
        wanted = map(lookup.items.__getitem__, asked.tolist())
        found = map(sent.places.get, wanted, repeat(FAILED))
        places: IntArray = np.fromiter(found, np.int64, len(asked))
        came, places_of_rows = asked[places >= 0], places[places >= 0]
        rows[came], times_s[came] = sent.rows[places_of_rows], sent.times_s[places_of_rows]
        sources[came] = STORE
        sources[asked[places == ABSENT]] = UNKNOWN
        return sent.refused

    def _check(self, answers: Mapping[int, StoredRow | None], now_s: float) -> SentRows:
        """Keeps what is right in the cache."""
        sent = {item: stored for item, stored in answers.items() if stored}
        rows, reasons = self._layout.unpack([stored.row for stored in sent.values()])
        times_s = np.array([stored.time_s for stored in sent.values()])
        for at in np.flatnonzero(~is_right_time(times_s, now_s)).tolist():
            reasons[at] = reasons[at] or WRONG_TIME
        items = [*sent]
        if any(reasons):
            for reason in filter(None, reasons):
                self._refusals.note("item", reason)
            good = [at for at, reason in enumerate(reasons) if not reason]
            items, rows, times_s = [items[at] for at in good], rows[good], times_s[good]
        self._cache.put(items, rows, times_s, CACHE, now_s)
        places = dict(zip(items, range(len(items)), strict=True))
        if len(sent) < len(answers):
            absent = [item for item, stored in answers.items() if stored is None]
            nothing = np.zeros(len(absent), self._layout.dtype)
            self._cache.put(absent, nothing, np.zeros(len(absent)), UNKNOWN, now_s)
            places |= dict.fromkeys(absent, ABSENT)
        return SentRows(rows, times_s, places, len(sent) - len(items))

    def _fall_back(self, items: CachedRows, base: Base, now_s: float) -> None:
        """Fills the open rows from the snapshot, or with defaults."""
        rows, sources, times_s, _ = items
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
        rows[IS_DEFAULT[sources]] = self._default
