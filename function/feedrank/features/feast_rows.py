"""Rows of Feast's feature views, made into a source's cells and checked as those of any store."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.features.feast_values import (
    BOOL,
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    NULL,
    TIME,
    Numbers,
    numbers_of,
)
from feedrank.features.feast_views import FeastColumn, columns_of, views_of
from feedrank.features.packed_rows import MARK, RowLayout, Rows
from feedrank.features.snapshot import default_cells
from feedrank.features.spec import Block, FeatureSpec, Source

LACKS, ENCODING, TYPE = "isn't in the row", "encoding", "type"
WHOLE_KINDS = [NULL, INT32, INT64, BOOL]
KINDS: Mapping[Block, Sequence[int]] = {
    "times": [NULL, TIME, INT32, INT64, DOUBLE],  # a float has no room for seconds
    "integers": WHOLE_KINDS,
    "values": [*WHOLE_KINDS, FLOAT, DOUBLE],
}
Values = Mapping[str, Any]  # of one view by feature, as DynamoDB's JSON has them


class _NoRow(dict[str, Any]):
    """The values of a view that has no row for an id: nulls, as the SDK says."""

    def __missing__(self, _name: str) -> dict[str, str]:
        return {"B": ""}


NO_ROW: Values = _NoRow()


class FeastLayout(RowLayout):
    """A stored row is a tuple: the values of each view, in the order of `views_of`."""

    def __init__(self, spec: FeatureSpec, source: Source) -> None:
        """Raises SpecError."""
        super().__init__(spec, source)
        columns = columns_of(spec, source)
        views = [*views_of(columns)]
        self._columns: list[tuple[int, FeastColumn]] = []  # each with its view's place
        self._of_block: dict[Block, slice] = {}
        for block in self.blocks:
            start = len(self._columns)
            for feature in spec.block(source, block):
                column = columns[feature.name]
                self._columns.append((views.index(column.view), column))
            self._of_block[block] = slice(start, len(self._columns))
        self._nothing = (NO_ROW,) * len(views)
        self._defaults = default_cells(spec, source)
        self._is_right = {block: np.isin(np.arange(256), KINDS[block]) for block in self.blocks}

    def unpack(self, stored: Sequence[Any]) -> tuple[Rows, list[str]]:
        """(stored,) rows, and for each why it is refused, empty where it isn't. The cells of a
        refused row mean nothing."""
        reasons = [""] * len(stored)
        try:
            numbers = numbers_of(self._texts(stored))
        except (LookupError, TypeError, ValueError, AttributeError):  # one of them is wrong
            reasons = [self._malformed(row) for row in stored]
            pairs = zip(stored, reasons, strict=True)
            stored = [self._nothing if reason else row for row, reason in pairs]
            numbers = numbers_of(self._texts(stored))
        rows, wrong = self._rows(numbers, len(stored))
        if wrong.any() or self._wrong_cells(rows):
            for at, reason in enumerate(reasons):
                types = np.flatnonzero(wrong[:, at])
                reasons[at] = (
                    reason
                    or (f"{self._columns[types[0]][1]}: {TYPE}" if len(types) else "")
                    or self._wrong_cells(rows[at : at + 1])
                )
        return rows, reasons

    def _texts(self, stored: Sequence[Sequence[Values]]) -> list[str]:
        """Column by column. Raises what a row of another shape brings."""
        texts: list[str] = []
        for view, column in self._columns:
            name = column.name
            texts += [row[view][name]["B"] for row in stored]
        return texts

    def _malformed(self, row: Sequence[Values]) -> str:
        for view, column in self._columns:
            try:
                value = row[view][column.name]
                numbers_of([value["B"]])
            except (TypeError, ValueError, AttributeError):
                return f"{column}: {ENCODING}"
            except LookupError:
                return f"{column}: {LACKS}"
        return ""

    def _rows(self, numbers: Numbers, count: int) -> tuple[Rows, NDArray[np.bool_]]:
        """(count,) rows, and (columns, count) whether a value is one that its feature can't be."""
        shape = len(self._columns), count
        kinds, floats, wholes = (each.reshape(shape) for each in numbers)
        rows = np.zeros(count, self.dtype)
        rows[MARK] = self.mark
        wrong = np.zeros(kinds.shape, bool)
        for block, at in self._of_block.items():
            wrong[at] = ~self._is_right[block][kinds[at]]
            cells: NDArray[Any] = wholes[at] if block == "integers" else floats[at]
            defaults = self._defaults[block][:, np.newaxis]
            with np.errstate(over="ignore"):  # an infinity is refused
                rows[block] = np.where(kinds[at] == NULL, defaults, cells).T
        return rows, wrong


def feast_layout(spec: FeatureSpec, source: Source) -> RowLayout:
    """Pairs are not Feast's. Raises SpecError."""
    return RowLayout(FeatureSpec(()), source) if source == "pair" else FeastLayout(spec, source)
