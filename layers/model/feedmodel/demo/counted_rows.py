"""Rows of a live store from counts, by the formulas that training uses."""

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedmodel.demo.counts import ItemCounts, UserCounts
from feedmodel.demo.formulas import item_columns, pair_columns, user_columns
from feedmodel.demo.specs import Priors
from feedrank.domain import IntArray
from feedrank.errors import SpecError
from feedrank.features.packed_rows import (
    ITEM,
    MARK,
    MARK_BYTES,
    RowLayout,
    check_storable,
)
from feedrank.features.spec import FeatureSpec, Source

CREATED = "item_created_at"
AGE = "item_age_days"
CTR, DWELL = ("user_historical_ctr", "item_ctr"), ("user_avg_dwell_time", "item_avg_dwell_time")
Columns = Mapping[str, NDArray[Any]]


class StoredPairsError(Exception):
    """What is stored as a user's pairs is none of this layout."""


class CountedRows:
    """Rows of a bundle's layout. The priors are those of its spec: the defaults of the same
    features."""

    def __init__(self, spec: FeatureSpec) -> None:
        """Raises SpecError for a feature that isn't made of counts."""
        self._spec = spec
        self._prior = Priors(_default(spec, CTR), _default(spec, DWELL), "", 0.0)
        self.has_items = bool(spec.columns("item"))
        self.has_pairs = bool(spec.columns("pair"))
        self._layouts = {source: RowLayout(spec, source) for source in ("user", "item", "pair")}
        known: dict[Source, Columns] = {
            "user": self._user_columns([]),
            "item": self._item_columns([]),
            "pair": pair_columns(_whole(())),
        }
        for source, columns in known.items():
            check_storable(spec, source)
            _check_columns(spec, source, columns)

    def users(self, counts: Sequence[UserCounts]) -> list[bytes]:
        return self._packed("user", len(counts), self._user_columns(counts))

    def items(self, counts: Sequence[ItemCounts]) -> list[bytes]:
        return self._packed("item", len(counts), self._item_columns(counts))

    def with_pairs(self, packed: bytes, items: Iterable[int]) -> bytes:
        """A user's packed pairs, with one more interaction with each of `items`. Raises
        StoredPairsError."""
        layout = self._layouts["pair"]
        counts: dict[int, int] = {}
        if packed:
            stored, reason = layout.unpack_pairs(packed)
            if reason:
                raise StoredPairsError(reason)
            interactions = stored["values"][:, 0].astype(np.int64)
            counts = dict(zip(stored[ITEM].tolist(), interactions.tolist(), strict=True))
        for item in items:
            counts[item] = counts.get(item, 0) + 1
        pairs = np.zeros(len(counts), layout.pair_dtype)
        pairs[ITEM] = sorted(counts)
        columns = pair_columns(_whole(counts[item] for item in sorted(counts)))
        self._fill(layout, pairs, columns)
        return layout.mark.to_bytes(MARK_BYTES, "little") + pairs.tobytes()

    def _user_columns(self, counts: Sequence[UserCounts]) -> Columns:
        return user_columns(
            _whole(each.interactions for each in counts),
            _whole(each.clicks for each in counts),
            _whole(each.dwell_ms for each in counts),
            _whole(each.days for each in counts),
            self._prior,
        )

    def _item_columns(self, counts: Sequence[ItemCounts]) -> Columns:
        created_s = [nan if each.created_s is None else each.created_s for each in counts]
        columns = item_columns(
            _whole(each.interactions for each in counts),
            _whole(each.clicks for each in counts),
            _whole(each.dwell_ms for each in counts),
            self._prior,
        )
        return columns | {CREATED: np.array(created_s, np.float64)}

    def _packed(self, source: Source, count: int, columns: Columns) -> list[bytes]:
        layout = self._layouts[source]
        rows = np.zeros(count, layout.dtype)
        rows[MARK] = layout.mark
        self._fill(layout, rows, columns)
        return [row.tobytes() for row in rows]

    def _fill(self, layout: RowLayout, rows: NDArray[Any], columns: Columns) -> None:
        for block in layout.blocks:
            features = self._spec.block(layout.source, block)
            rows[block] = np.column_stack([columns[feature.column] for feature in features])


def _whole(numbers: Iterable[int]) -> IntArray:
    return np.array([*numbers], np.int64)


def _default(spec: FeatureSpec, names: Sequence[str]) -> float:
    """Of features that share a prior."""
    features = [f for input_ in spec.inputs for f in input_.features if f.name in names]
    defaults = {f.default for f in features}
    prior = defaults.pop() if defaults else 0.0  # no row needs it
    if defaults or prior is None:
        raise SpecError(
            f"{' and '.join(names)} share a prior: their default must be the same number"
        )
    return prior


def _check_columns(spec: FeatureSpec, source: Source, columns: Columns) -> None:
    for feature in spec.columns(source):
        is_time = feature.column == CREATED
        if feature.column in columns and feature.width == 1 and feature.is_time == is_time:
            continue
        hint = (
            f"read it as since({CREATED}): an item ages without events"
            if feature.name == AGE
            else f"there are {', '.join(columns)}, each one float32 number"
        )
        raise SpecError(f"{feature.name} isn't made of counts; {hint}")
    if spec.block(source, "integers"):
        raise SpecError(f"an int64 input reads features of a {source}: counts give float32 numbers")
