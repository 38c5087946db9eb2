"""What the parts of a live store share: limits, the rows that they give, and the snapshot's rows
that stand in for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import BoolArray, FeatureRows, Query
from feedrank.features.packed_rows import RowLayout, check_storable
from feedrank.features.snapshot import SnapshotStore, default_cells
from feedrank.features.spec import Block, FeatureSpec, Source
from feedrank.telemetry.logging import logger

MAX_AHEAD_S = 86_400.0  # of an event's time; one in milliseconds would never grow old
WRONG_TIME = "time"
Blocks = Mapping[Block, NDArray[Any]]
# How a store lays out the rows of a source. It raises SpecError where a row can't hold a feature.
LayoutOf = Callable[[FeatureSpec, Source], RowLayout]


@dataclass(frozen=True, slots=True)
class LiveLimits:
    budget_s: float  # for the store, of each request
    cache_bytes: int
    cache_s: float  # for which a row in the cache isn't read again
    max_age_s: float = inf  # of a row, by the time of its newest event

    def allows(self, time_s: float, now_s: float) -> bool:
        return not now_s - time_s > self.max_age_s


class LiveRows(NamedTuple):
    """Rows with the source of each. `cells` are (columns,) of a user, (items, columns) of items and
    pairs."""

    cells: Mapping[Source, Blocks]
    sources: NDArray[np.uint8]  # (rows,)
    times_s: NDArray[np.float64]  # (rows,) of their newest events, in Unix seconds
    refused: int


class Base:
    """The snapshot's rows of a query, looked up where they are needed."""

    def __init__(self, snapshot: SnapshotStore, query: Query) -> None:
        self._snapshot = snapshot
        self._query = query
        self.as_of_s = snapshot.as_of_s

    @cached_property
    def rows(self) -> FeatureRows:
        return self._snapshot.look_up(self._query)

    def blocks(self, source: Source, values: NDArray[Any]) -> Blocks:
        """Of a source whose `values` these are."""
        blocks: dict[Block, NDArray[Any]] = {"values": values}
        for (of, block), cells in self.rows.others.items():
            if of == source:
                blocks[cast("Block", block)] = cells
        return blocks


class Refusals:
    """Says of each reason once a container: a row that is wrong may be in every request."""

    def __init__(self) -> None:
        self._reasons: set[tuple[Source, str]] = set()

    def note(self, source: Source, reason: str) -> None:
        if (source, reason) not in self._reasons:
            self._reasons.add((source, reason))
            logger.warning("feature row refused", source=source, reason=reason)


def packed_layout(spec: FeatureSpec, source: Source) -> RowLayout:
    check_storable(spec, source)
    return RowLayout(spec, source)


def is_right_time(times_s: NDArray[np.float64], now_s: float) -> BoolArray:
    is_right: BoolArray = (times_s >= 0) & (times_s <= now_s + MAX_AHEAD_S)  # NaN is not
    return is_right


def default_row(spec: FeatureSpec, layout: RowLayout) -> Any:  # noqa: ANN401 NumPy's record
    """What an unknown id has."""
    row = np.zeros(1, layout.dtype)
    for block, defaults in default_cells(spec, layout.source).items():
        if block in layout.blocks:
            row[block] = defaults
    return row[0]
