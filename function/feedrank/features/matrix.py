"""From feature rows to the tensors that a model reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import FeatureRows, Query
from feedrank.errors import InvalidRequestError
from feedrank.features import expressions
from feedrank.features.limits import limited_columns
from feedrank.features.spec import Block, Feature, FeatureSpec, Input, Source
from feedrank.features.vocabulary import NO_VOCABULARIES, Vocabulary

LARGEST_WHOLE = 2**53  # that float64 tells from its neighbours
Columns = slice | list[int]
Tensor = NDArray[Any]  # float32 or int64
Fill = Callable[[Tensor, Query, FeatureRows], None]
TABLES: tuple[Source, ...] = ("user", "item", "pair")
COPIED: tuple[Block, ...] = ("integers", "halves")


class MatrixBuilder:
    """Lays out a spec's inputs once, then fills them for each query without a loop over items."""

    def __init__(
        self,
        spec: FeatureSpec,
        vocabularies: Mapping[str, Vocabulary] = NO_VOCABULARIES,
        *,
        check_tables: bool = False,
    ) -> None:
        """`check_tables` where rows are not a bundle's own, which publishing checked."""
        self._inputs = [
            _InputBuilder(spec, input_, vocabularies, check_tables=check_tables)
            for input_ in spec.inputs
        ]

    def build(self, query: Query, rows: FeatureRows) -> dict[str, Tensor]:
        """Each model input by name, of the type and shape that the spec gives it.

        Raises InvalidRequestError where the context holds no number and the spec wants one, or the
        request has one that the model doesn't take; ScoringError where the tables have.
        """
        return {builder.name: builder.build(query, rows) for builder in self._inputs}


class _InputBuilder:
    def __init__(
        self,
        spec: FeatureSpec,
        input_: Input,
        vocabularies: Mapping[str, Vocabulary],
        *,
        check_tables: bool,
    ) -> None:
        self.name = input_.name
        self._per_item = input_.per == "item"
        self._width = input_.width
        self._type = np.dtype(input_.type)
        self._shape = input_.shape
        self._user = _columns(spec, input_, "user", "values")
        self._items = _columns(spec, input_, "item", "values")
        self._pairs = _columns(spec, input_, "pair", "values")
        numbers = [f for f in input_.features if f.source == "context" and not f.size]
        at = [start for f, start in input_.starts if f in numbers]
        self._context_at = _slice_if_adjacent(at) if at else None
        self._context = [
            (_whole if input_.type == "int64" else context_column)(feature, vocabularies)
            for feature in numbers
        ]
        # What few models have: whole numbers and times of tables, lists, the caller's features.
        self._others_shared = [
            *_others(spec, input_, ("user",)),
            *(
                _list_of_context(feature, start, vocabularies)
                for feature, start in input_.starts
                if feature.source == "context" and feature.size
            ),
        ]
        self._others = [*_others(spec, input_, ("item", "pair")), *_candidates(input_)]
        self._limited = limited_columns(input_, tables=check_tables)

    def build(self, query: Query, rows: FeatureRows) -> Tensor:
        shared = np.zeros(self._width, self._type)  # what is the same in each row
        if self._user:
            to, of = self._user
            shared[to] = rows.user[of]
        if self._context_at is not None:
            shared[self._context_at] = [
                column(query.context, query.time_s) for column in self._context
            ]
        for fill in self._others_shared:
            fill(shared, query, rows)
        if not self._per_item:
            if self._limited:
                self._limited.check(shared, query)
            return shared.reshape(self._shape or (1, -1))
        matrix = np.empty((len(query.item_ids), self._width), self._type)
        matrix[:] = shared
        if self._items:
            to, of = self._items
            matrix[:, to] = rows.items[:, of]
        if self._pairs:
            to, of = self._pairs
            matrix[:, to] = rows.pairs[:, of]
        for fill in self._others:
            fill(matrix, query, rows)
        if self._limited:
            self._limited.check(matrix, query)
        return matrix.reshape(self._shape) if self._shape else matrix


def context_column(
    feature: Feature, vocabularies: Mapping[str, Vocabulary] = NO_VOCABULARIES
) -> expressions.Compute:
    """A context feature of one number, with its default where its key was left out."""
    parsed = expressions.parse(feature.expression)
    if parsed.key is None:
        return parsed.compute
    default = number_of(feature)
    if parsed.reads == "text":
        vocabulary = vocabularies[feature.vocabulary]

        def category(context: Mapping[str, Any], time_s: expressions.Values) -> expressions.Values:
            known = parsed.key in context
            return vocabulary.numbers([parsed.compute(context, time_s)])[0] if known else default

        return category

    def column(values: Mapping[str, Any], time_s: expressions.Values) -> expressions.Values:
        return parsed.compute(values, time_s) if parsed.key in values else default

    return column


def _whole(feature: Feature, vocabularies: Mapping[str, Vocabulary]) -> expressions.Compute:
    """For an int64 input, into which NumPy would cut off a fraction without a word."""
    column = context_column(feature, vocabularies)
    place = expressions.parse(feature.expression).key or feature.name

    def whole(context: Mapping[str, Any], time_s: expressions.Values) -> expressions.Values:
        value = column(context, time_s)
        if not (value % 1 == 0 and abs(value) < LARGEST_WHOLE):
            raise InvalidRequestError(f"context.{place} must be a whole number below 2^53")
        return value

    return whole


def number_of(feature: Feature) -> float:
    """The default as a number: null is NaN."""
    return np.nan if feature.default is None else feature.default


def last_of_each(numbers: NDArray[Any], offsets: NDArray[Any], feature: Feature) -> NDArray[Any]:
    """(lists, size): the last ones of each list, behind as many defaults as it takes. `offsets` are
    (lists + 1,), where each begins among the numbers, and the end. All lists are laid out at once:
    one by one, a hundred take longer than the model."""
    at = offsets[1:, np.newaxis] - feature.size + np.arange(feature.size)
    rows = np.empty(at.shape, numbers.dtype)
    rows[:] = feature.default_cells
    if len(numbers):
        is_in_list = at >= offsets[:-1, np.newaxis]  # not in front of it
        np.copyto(rows, numbers.take(at, mode="clip"), where=is_in_list)
    return rows


def _list_of_context(feature: Feature, start: int, vocabularies: Mapping[str, Vocabulary]) -> Fill:
    parsed, vocabulary = expressions.parse(feature.expression), vocabularies[feature.vocabulary]
    end = start + feature.size

    def fill(shared: Tensor, query: Query, _rows: FeatureRows) -> None:
        """`shared` is 0 before, which is the default of every vocabulary."""
        if parsed.key in query.context:
            texts = parsed.compute(query.context, query.time_s)[-feature.size :]
            shared[end - len(texts) : end] = vocabulary.numbers(texts)

    return fill


def _others(spec: FeatureSpec, input_: Input, sources: Sequence[Source]) -> list[Fill]:
    """Fills the columns that come of the tables' whole numbers, times and float16 numbers."""
    fills: list[Fill] = []
    for source in sources:
        fills += [
            _copied(source, block, *columns)
            for block in COPIED
            if (columns := _columns(spec, input_, source, block))
        ]
        if columns := _columns(spec, input_, source, "times"):
            times = [f for f in input_.features if f.source == source and f.is_time]
            fills.append(_days_since(source, *columns, np.array([number_of(f) for f in times])))
    return fills


def _copied(source: Source, block: Block, to: Columns, of: Columns) -> Fill:
    def fill(matrix: Tensor, _query: Query, rows: FeatureRows) -> None:
        matrix[..., to] = rows.others[source, block][..., of]

    return fill


def _days_since(source: Source, to: Columns, of: Columns, defaults: NDArray[np.float64]) -> Fill:
    def fill(matrix: Tensor, query: Query, rows: FeatureRows) -> None:
        matrix[..., to] = days_since(rows.others[source, "times"][..., of], query.time_s, defaults)

    return fill


def days_since(
    times: expressions.Values, now_s: expressions.Values, default: expressions.Values
) -> expressions.Values:
    """Days from a moment to now, both in Unix seconds; the default where the moment isn't known."""
    days = (now_s - times) / expressions.DAY_S
    return np.where(np.isnan(days), default, days)


def _candidates(input_: Input) -> list[Fill]:
    """Fills what the caller knows of each item, or the defaults where it was left out."""
    return [_candidate(f, start) for f, start in input_.starts if f.source == "candidate"]


def _candidate(feature: Feature, start: int) -> Fill:
    to, default = slice(start, start + feature.width), number_of(feature)

    def fill(matrix: Tensor, query: Query, _rows: FeatureRows) -> None:
        values = query.candidates.get(feature.name)
        matrix[:, to] = default if values is None else values.reshape(len(matrix), -1)

    return fill


def _columns(
    spec: FeatureSpec, input_: Input, source: Source, block: Block
) -> tuple[Columns, Columns] | None:
    """Where this block's features go in the matrix, and where they stand in the block."""
    table = {feature.name: start for feature, start in spec.starts(source, block)}
    to: list[int] = []
    of: list[int] = []
    for feature, start in input_.starts:
        if feature.source == source and input_.block_of(feature) == block:
            to += range(start, start + feature.width)
            of += range(table[feature.name], table[feature.name] + feature.width)
    return (_slice_if_adjacent(to), _slice_if_adjacent(of)) if to else None


def _slice_if_adjacent(columns: list[int]) -> Columns:
    """A slice copies faster than a list of columns."""
    first, last = columns[0], columns[-1]
    return slice(first, last + 1) if columns == list(range(first, last + 1)) else columns
