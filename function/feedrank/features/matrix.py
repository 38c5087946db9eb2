"""From feature rows to the tensors that a model reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from feedrank.domain import FeatureRows, FloatArray, Query
from feedrank.features import expressions as context
from feedrank.features.spec import Feature, FeatureSpec, Input, Source

Columns = slice | list[int]


class MatrixBuilder:
    """Lays out a spec's inputs once, then fills them for each query without a loop over items."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._inputs = [_InputBuilder(spec, input_) for input_ in spec.inputs]

    def build(self, query: Query, rows: FeatureRows) -> dict[str, FloatArray]:
        """Each model input by name: (items, features) or, per request, (1, features) float32.

        Raises InvalidRequestError where the context holds no number and the spec wants one.
        """
        return {builder.name: builder.build(query, rows) for builder in self._inputs}


class _InputBuilder:
    def __init__(self, spec: FeatureSpec, input_: Input) -> None:
        self.name = input_.name
        self._per_item = input_.per == "item"
        self._width = len(input_.features)
        self._user = _columns(spec, input_, "user")
        self._items = _columns(spec, input_, "item")
        self._pairs = _columns(spec, input_, "pair")
        context_at = [at for at, f in enumerate(input_.features) if f.source == "context"]
        self._context_at = _slice_if_adjacent(context_at) if context_at else None
        self._context = [context_column(input_.features[at]) for at in context_at]

    def build(self, query: Query, rows: FeatureRows) -> FloatArray:
        shared = np.zeros(self._width, dtype=np.float32)  # what is the same in each row
        if self._user:
            to, of = self._user
            shared[to] = rows.user[of]
        if self._context_at is not None:
            shared[self._context_at] = [
                column(query.context, query.time_s) for column in self._context
            ]
        if not self._per_item:
            return shared.reshape(1, -1)
        matrix = np.empty((len(query.item_ids), self._width), dtype=np.float32)
        matrix[:] = shared
        if self._items:
            to, of = self._items
            matrix[:, to] = rows.items[:, of]
        if self._pairs:
            to, of = self._pairs
            matrix[:, to] = rows.pairs[:, of]
        return matrix


def context_column(feature: Feature) -> context.Compute:
    """A context feature with its default for a caller who left its key out."""
    parsed = context.parse(feature.expression)
    if parsed.key is None:
        return parsed.compute

    def column(values: Mapping[str, Any], time_s: Any) -> Any:  # noqa: ANN401 a scalar or a column
        return parsed.compute(values, time_s) if parsed.key in values else feature.default

    return column


def _columns(spec: FeatureSpec, input_: Input, source: Source) -> tuple[Columns, Columns] | None:
    """Where this source's features go in the matrix, and where they stand in the source's table."""
    table = [feature.name for feature in spec.columns(source)]
    to = [at for at, feature in enumerate(input_.features) if feature.source == source]
    of = [table.index(input_.features[at].name) for at in to]
    return (_slice_if_adjacent(to), _slice_if_adjacent(of)) if to else None


def _slice_if_adjacent(columns: list[int]) -> Columns:
    """A slice copies faster than a list of columns."""
    first, last = columns[0], columns[-1]
    return slice(first, last + 1) if columns == list(range(first, last + 1)) else columns
