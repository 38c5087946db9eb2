"""Rows of a store that changes by the minute, and what stands in for them, row by row.

    store -> this container's cache, however old -> the bundle's snapshot -> defaults

A row that comes too late, is refused or is too old takes the next step; `degraded` names the step
and how many rows took it. An id that the store doesn't know takes none: it has the defaults, and is
reported as unknown.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from feedrank.domain import FeatureRows, IntArray, Query
from feedrank.features.live_items import LiveItems
from feedrank.features.live_rows import (
    Base,
    LayoutOf,
    LiveLimits,
    LiveRows,
    Refusals,
    packed_layout,
)
from feedrank.features.live_users import LiveUsers
from feedrank.features.row_sources import UNKNOWN, degraded, is_all_lost, row_sources
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.stored_rows import Answers, RowReader, StoreReads
from feedrank.features.vocabulary import keys_of, text_key
from feedrank.settings import is_lambda

# Where `FeatureRows` has a source's `values`.
FIELDS: Mapping[Source, str] = {"user": "user", "item": "items", "pair": "pairs"}


class LiveStore:
    """A `FeatureStore` of users, or of users and items, around the bundle's snapshot. A user's row
    has the user's pairs. Use it from one thread: the event loop's, or the request's on Lambda."""

    def __init__(
        self,
        reader: RowReader,
        snapshot: SnapshotStore,
        spec: FeatureSpec,
        limits: LiveLimits,
        clock: Callable[[], float] = time.time,
        *,
        reads_items: bool,
        layout_of: LayoutOf = packed_layout,
        sends_texts: bool = False,
    ) -> None:
        """Where rows of `layout_of` have no pairs, those are the snapshot's. `reader` gets ids that
        are texts if it `sends_texts`, else their keys. Raises SpecError where a row can't hold one
        of the features."""
        self._snapshot = snapshot
        self._clock = clock
        self._has_users = bool(spec.columns("user"))
        layout, of_pairs = layout_of(spec, "user"), layout_of(spec, "pair")
        reads_users = bool(layout.blocks or of_pairs.blocks)
        self._keeps_pairs = bool(spec.columns("pair")) and not of_pairs.blocks
        reads_items = reads_items and bool(spec.columns("item"))
        refusals = Refusals()
        self._users = self._items = None
        if reads_users:
            self._users = LiveUsers(spec, layout, of_pairs, limits, refusals)
        if reads_items:
            self._items = LiveItems(spec, layout_of(spec, "item"), limits, refusals)
        self._sends_texts = sends_texts and spec.ids == "text"
        self._reads_all = reads_items or not spec.columns("item")
        self._reads = StoreReads(reader, limits.budget_s, reads_items=reads_items)

    @property
    def waits(self) -> bool:
        """On Lambda the request blocks: no other is served meanwhile, so it needs no event loop."""
        return not is_lambda()

    def connect(self) -> None:
        """After a SnapStart restore."""
        self._reads.connect()

    async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
        now_s, ids = self._clock(), keys_of(query.item_ids)
        lookup = self._items.find(ids.tolist(), now_s) if self._items else None
        answers = await self._read(query, ids, lookup.missing if lookup else (), deadline_s)
        base, parts = Base(self._snapshot, query), list[LiveRows]()
        if self._users:
            parts.append(self._users.rows(answers.user, ids, base, now_s))
        if self._items and lookup:
            # A copy: what comes late may still add to it.
            parts.append(self._items.rows(lookup, dict(answers.items), base, now_s))
        rows = _no_rows(len(ids)) if lookup and not self._keeps_pairs else base.rows
        return self._with(rows, parts, now_s)

    async def _read(
        self, query: Query, ids: IntArray, missing: Sequence[int], deadline_s: float
    ) -> Answers:
        """By the items' keys. The user is read only where there are features of one."""
        user = query.user_id if self._users else None
        if not self._sends_texts:
            key = None if user is None else _key_of(user)
            return await self._reads.read(key, missing, deadline_s)
        keys = dict(zip(query.item_ids, ids.tolist(), strict=True))
        wanted = {*missing}
        texts = [text for text, key in keys.items() if key in wanted]
        answers = await self._reads.read(user, texts, deadline_s)
        by_key = Answers()
        by_key.user = answers.user
        by_key.items = {keys[text]: row for text, row in dict(answers.items).items()}
        return by_key

    def _with(self, rows: FeatureRows, parts: list[LiveRows], now_s: float) -> FeatureRows:
        """`rows` with the parts in place of their own."""
        others, fields = dict(rows.others), dict[str, Any]()
        for part in parts:
            for source, blocks in part.cells.items():
                for block, cells in blocks.items():
                    if block == "values":
                        fields[FIELDS[source]] = cells
                    else:
                        others[source, block] = cells
            if "item" in part.cells:
                fields["unknown_items"] = part.sources == UNKNOWN
            else:
                fields["unknown_user"] = self._has_users and bool(part.sources[0] == UNKNOWN)
        used = row_sources(
            np.concatenate([part.sources for part in parts] or [np.empty(0, np.uint8)]),
            np.concatenate([part.times_s for part in parts] or [np.empty(0)]),
            now_s,
            sum(part.refused for part in parts),
        )
        if self._reads_all and is_all_lost(used.sources):
            used = used._replace(all_lost=True)
        return rows._replace(**fields, others=others, degraded=degraded(used), sources=used)


def _key_of(id_: int | str) -> int:
    return text_key(id_) if isinstance(id_, str) else id_


def _no_rows(items: int) -> FeatureRows:
    none = np.empty((items, 0), np.float32)
    return FeatureRows(none[0], none, none, unknown_user=False, unknown_items=np.zeros(items, bool))
