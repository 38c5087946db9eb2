"""A user's row of a live store, with the user's pairs, and what stands in for it."""

from math import inf

import numpy as np

from feedrank.domain import IntArray
from feedrank.features.live_rows import (
    WRONG_TIME,
    Base,
    Blocks,
    LiveLimits,
    LiveRows,
    Refusals,
    default_row,
    is_right_time,
)
from feedrank.features.packed_rows import ITEM, RowLayout, Rows
from feedrank.features.row_sources import DEFAULTS, SNAPSHOT, STORE, UNKNOWN
from feedrank.features.snapshot import ALL_ROWS, Cells, Table
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.stored_rows import StoredRow


class LiveUsers:
    def __init__(
        self,
        spec: FeatureSpec,
        layout: RowLayout,
        of_pairs: RowLayout,
        limits: LiveLimits,
        refusals: Refusals,
    ) -> None:
        self._layout, self._of_pairs = layout, of_pairs
        self._default = default_row(spec, self._layout)
        self._default_pair = default_row(spec, self._of_pairs)
        self._limits = limits
        self._refusals = refusals

    def rows(
        self, answer: tuple[StoredRow | None, ...], items: IntArray, base: Base, now_s: float
    ) -> LiveRows:
        """`answer` is empty where the store gave none, None in it says that it has no such user."""
        refused = 0
        if answer:
            stored = answer[0]
            if stored is None:
                return self._default_rows(items, UNKNOWN, refused)
            live = self._read(stored, items, now_s)
            if live and self._limits.allows(stored.time_s, now_s):
                return live
            refused = int(live is None)
        rows = base.rows
        if rows.unknown_user or not self._limits.allows(base.as_of_s, now_s):
            return self._default_rows(items, DEFAULTS, refused)
        user, pairs = base.blocks("user", rows.user), base.blocks("pair", rows.pairs)
        return _live_rows(user, pairs, SNAPSHOT, base.as_of_s, refused)

    def _read(self, stored: StoredRow, items: IntArray, now_s: float) -> LiveRows | None:
        """None where it is refused."""
        rows: Rows | None = None
        wrong = "" if is_right_time(np.array(stored.time_s), now_s) else WRONG_TIME
        if not wrong and (stored.row or not stored.pairs):  # else the user has pairs alone
            rows, (wrong,) = self._layout.unpack([stored.row])
        pairs = np.empty(0, self._of_pairs.pair_dtype)
        if not wrong and stored.pairs and self._of_pairs.blocks:
            pairs, wrong = self._of_pairs.unpack_pairs(stored.pairs)
        if wrong:
            self._refusals.note("user", wrong)
            return None
        cells, source = (self._default, UNKNOWN) if rows is None else (rows[0], STORE)
        user = {block: cells[block] for block in self._layout.blocks}
        return _live_rows(user, self._pairs_with(pairs, items), source, stored.time_s, 0)

    def _pairs_with(self, pairs: Rows, items: IntArray) -> Blocks:
        blocks = self._of_pairs.blocks
        if not blocks:
            return {}
        first, *rest = blocks
        cells = {block: Cells(pairs[block], self._default_pair[block]) for block in blocks}
        table = Table(pairs[ITEM], cells[first], {block: cells[block] for block in rest})
        of_first, _, others = table.find_all(items, ALL_ROWS)
        return {first: of_first, **others}

    def _default_rows(self, items: IntArray, source: int, refused: int) -> LiveRows:
        user, pair, count = self._default, self._default_pair, len(items)
        return _live_rows(
            {block: user[block] for block in self._layout.blocks},
            {b: pair[b][np.newaxis].repeat(count, 0) for b in self._of_pairs.blocks},
            source,
            -inf,
            refused,
        )


def _live_rows(user: Blocks, pairs: Blocks, source: int, time_s: float, refused: int) -> LiveRows:
    cells: dict[Source, Blocks] = {"user": user, "pair": pairs}
    return LiveRows(cells, np.array([source], np.uint8), np.array([time_s]), refused)
