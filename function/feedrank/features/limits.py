"""The numbers that a model takes, compared with those that a request brings.

ONNX Runtime reads a negative index from the end of an embedding, where torch fails: a score that
nobody computed in training, and no error. Publishing finds the limits and checks the tables.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import Query
from feedrank.errors import InvalidRequestError, RequestError, ScoringError
from feedrank.features import expressions
from feedrank.features.spec import Feature, Input

TIMESTAMP = expressions.TIMESTAMP


class _Column(NamedTuple):
    at: int
    feature: Feature
    smallest: float | None
    largest: float | None

    @property
    def range(self) -> str:
        if self.largest is None:
            return f"at least {self.smallest}"
        if self.smallest is None:
            return f"at most {self.largest}"
        return f"from {self.smallest} to {self.largest}"


class LimitedColumns:
    """Those of an input that a request can fill with a number which the model doesn't take."""

    def __init__(self, columns: Sequence[_Column], dtype: np.dtype[Any]) -> None:
        self._columns = columns
        self._at = [column.at for column in columns]
        ends = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        pairs = [
            (
                ends.min if column.smallest is None else column.smallest,
                ends.max if column.largest is None else column.largest,
            )
            for column in columns
        ]
        self._smallest, self._largest = np.array(pairs, dtype).T

    def check(self, cells: NDArray[Any], query: Query) -> None:
        """`cells` are (..., width). Raises InvalidRequestError that names what the request sent, or
        ScoringError for what it didn't send."""
        numbers = cells[..., self._at]
        is_valid = (numbers >= self._smallest) & (numbers <= self._largest)  # NaN is not
        if not is_valid.all():
            first = int(is_valid.reshape(-1, len(self._at)).all(axis=0).argmin())
            raise _refusal(self._columns[first], query)


def limited_columns(input_: Input, *, tables: bool) -> LimitedColumns | None:
    """With `tables`, also those whose numbers come from tables as they are."""
    columns = [
        _Column(start + cell, feature, *ends)
        for feature, start in input_.starts
        if tables or feature.is_time or feature.source in {"context", "candidate"}
        for cell, ends in enumerate(input_.limits.get(feature.name, ()))
    ]
    return LimitedColumns(columns, np.dtype(input_.type)) if columns else None


def _refusal(column: _Column, query: Query) -> RequestError:
    feature, must = column.feature, f"must be {column.range}"
    if feature.source == "candidate":
        return InvalidRequestError(f"features.{feature.name}: {must}")
    if feature.source == "context":
        key = expressions.parse(feature.expression).key or feature.name
        return InvalidRequestError(f"context.{key}: {must}")
    if feature.is_time and TIMESTAMP in query.context:
        return InvalidRequestError(f"context.{TIMESTAMP}: the days of {feature.name} {must}")
    return ScoringError(f"{feature.source} feature {feature.name}: {must}")
