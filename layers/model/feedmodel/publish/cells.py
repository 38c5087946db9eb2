"""A table's columns as the numbers that a model reads: float32, int64, times, lists, vocabularies.

Every function takes the column, its feature and the place that begins the text of an error, and
gives (rows, width). Missing cells take the feature's default; where that is null they stay NaN.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.float32 import float32_column
from feedrank.domain import IntArray
from feedrank.features.matrix import last_of_each, number_of
from feedrank.features.spec import Feature

SAMPLE = 3  # texts of a vocabulary, in an error
CHUNK_ROWS = 100_000  # of a list column, laid out at once
LATEST_S = 253_402_300_799.0  # the end of the year 9999
NUMBERS = {"integer", "floating", "mixed-integer-float"}
INT32, INT64 = np.iinfo(np.int32), np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Cells:
    """`rows` is (rows, width). `missing` counts empty cells, `unknown` what no vocabulary has."""

    rows: NDArray[Any]
    missing: int = 0
    unknown: int = 0


class TextNumbers:
    """Numbers a vocabulary's texts from 1; 0 is whatever it lacks."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = pd.Index(list(texts), dtype=object)

    def of(self, texts: NDArray[Any]) -> IntArray:
        numbers: IntArray = (
            self._index.get_indexer(pd.Index(texts, dtype=object)).astype(np.int64) + 1
        )
        return numbers

    @property
    def sample(self) -> str:
        texts = self._index[:SAMPLE].tolist()
        return ", ".join(map(repr, texts)) or "nothing"


def float32_cells(series: pd.Series, feature: Feature, place: str) -> Cells:
    """Raises PublishError, as `float32_column` does."""
    if feature.size:
        flat, offsets = _flat_lists(series, place)
        absent = 0 if feature.keep else _absent_vectors(series, offsets, feature, place)
        numbers = float32_column(flat, place)
        return Cells(
            _last_of_each(numbers, offsets, feature), int(np.isnan(numbers).sum()) + absent
        )
    numbers = float32_column(series, place)
    missing = np.isnan(numbers)
    if feature.default is not None:
        numbers[missing] = feature.default
    return Cells(numbers[:, np.newaxis], int(missing.sum()))


def integer_cells(series: pd.Series, feature: Feature, place: str) -> Cells:
    """(rows, width) int64. Raises PublishError for what is no whole number."""
    if feature.size:
        flat, offsets = _flat_lists(series, place)
        numbers, missing = _whole(flat, feature, place)
        rows = _last_of_each(numbers, offsets, feature)
        return Cells(rows, int(missing.sum()))
    numbers, missing = _whole(series, feature, place)
    return Cells(numbers[:, np.newaxis], int(missing.sum()))


def vocabulary_cells(
    series: pd.Series, feature: Feature, place: str, vocabulary: TextNumbers
) -> Cells:
    """(rows, width) int64. Raises PublishError where the vocabulary has nothing of a column."""
    if feature.size:
        flat, offsets = _flat_lists(series, place)
        numbers, missing, unknown = _numbered(flat, feature, place, vocabulary)
        rows = _last_of_each(numbers, offsets, feature)
        return Cells(rows, missing, unknown)
    numbers, missing, unknown = _numbered(series, feature, place, vocabulary)
    return Cells(numbers[:, np.newaxis], missing, unknown)


def _numbered(
    series: pd.Series, feature: Feature, place: str, vocabulary: TextNumbers
) -> tuple[IntArray, int, int]:
    """(cells,) and how many of them are missing and unknown."""
    texts, missing = _texts(series, place)
    numbers = vocabulary.of(texts)
    unknown = ~missing & (numbers == 0)
    if unknown.any() and not numbers.any():  # another spelling, such as de for DE or 3 for 03
        raise PublishError(
            f"{place}: the vocabulary {feature.vocabulary} has none of its values, such as "
            f"{texts[unknown][0]!r}; it has {vocabulary.sample}"
        )
    return numbers, int(missing.sum()), int(unknown.sum())


def time_cells(series: pd.Series, place: str) -> Cells:
    """(rows, 1) float64 Unix seconds, NaN where missing. A date without a zone is UTC."""
    if pd.api.types.infer_dtype(series, skipna=True) in NUMBERS:
        seconds = series.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        try:
            # Of texts only ISO 8601: 03/04 is in March here and in April there.
            moments = pd.to_datetime(series, utc=True, format="ISO8601")
        except (ValueError, TypeError) as error:
            raise PublishError(
                f"{place}: since() needs times: dates, ISO 8601 texts, or numbers of Unix seconds"
            ) from error
        seconds = moments.astype("datetime64[us, UTC]").astype("int64").to_numpy() / 1e6
        seconds = np.where(moments.isna(), np.nan, seconds)  # an empty text, too
    missing = np.isnan(seconds)
    if (late := ~(np.abs(seconds[~missing]) <= LATEST_S)).any():
        raise PublishError(
            f"{place} holds {seconds[~missing][late][0]:g}: numbers are Unix seconds, up to the "
            "year 9999"
        )
    return Cells(seconds[:, np.newaxis], int(missing.sum()))


def _whole(series: pd.Series, feature: Feature, place: str) -> tuple[IntArray, NDArray[np.bool_]]:
    missing = series.isna().to_numpy()
    present = series[~missing]
    kind = pd.api.types.infer_dtype(present, skipna=True)
    if kind not in {"integer", "floating", "boolean", "mixed-integer-float", "empty"}:
        raise PublishError(
            f"{place} holds {kind} values: an int64 input needs whole numbers; of texts or ids it "
            "makes them by a vocabulary"
        )
    if present.dtype.kind == "u" and len(present) and int(present.max()) > INT64.max:
        raise PublishError(f"{place} holds {int(present.max())}; int64 ends at {INT64.max}")
    exact = present.to_numpy()
    if exact.dtype.kind not in "iub":
        floats = present.to_numpy(dtype=np.float64)
        if not ((np.trunc(floats) == floats) & (np.abs(floats) < 2**53)).all():
            raise PublishError(f"{place}: an int64 input needs whole numbers")
        exact = floats
    numbers = np.full(len(series), int(number_of(feature)), np.int64)
    numbers[~missing] = exact.astype(np.int64)
    return numbers, missing


def _texts(series: pd.Series, place: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Texts as they are, whole numbers as they are written, so that 3 and "3" are the same."""
    missing = series.isna().to_numpy()
    present = series[~missing]
    kind = pd.api.types.infer_dtype(present, skipna=True)
    if kind in {"floating", "mixed-integer-float"}:
        floats = present.to_numpy(dtype=np.float64)
        if not ((np.trunc(floats) == floats) & (np.abs(floats) < 2**53)).all():
            raise PublishError(f"{place} holds fractions, which are in no vocabulary")
        present = pd.Series(floats.astype(np.int64), index=present.index)
    elif kind not in {"string", "integer", "categorical", "boolean", "empty", "mixed-integer"}:
        raise PublishError(f"{place} holds {kind} values; a vocabulary has texts and whole numbers")
    texts = np.full(len(series), "", dtype=object)
    texts[~missing] = present.astype(str).to_numpy(dtype=object)
    return texts, missing


def _flat_lists(series: pd.Series, place: str) -> tuple[pd.Series, IntArray]:
    """All elements one after the other, and (rows + 1,) where each row's begin. A list may be
    written as JSON, as in a CSV; a missing one is empty."""
    if pd.api.types.infer_dtype(series, skipna=True) == "string":
        try:
            series = series.map(json.loads, na_action="ignore")
        except ValueError as error:
            raise PublishError(f"{place}: not a JSON list: {error}") from error
    if series.isna().all():  # of whatever type
        return pd.Series([], dtype=np.float64), np.zeros(len(series) + 1, np.int64)
    try:
        lists = pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise PublishError(f"{place}: must hold lists of one type: {error}") from error
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    if pa.types.is_fixed_size_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
        raise PublishError(f"{place}: must hold lists, as its feature has a size")
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return lists.flatten().to_pandas(), offsets


def _absent_vectors(series: pd.Series, offsets: IntArray, feature: Feature, place: str) -> int:
    """How many rows have none. Raises PublishError for one of another width."""
    widths = np.diff(offsets)
    if (other := (widths != feature.size) & (widths != 0)).any():
        at = int(other.argmax())
        raise PublishError(
            f"{place}, row {series.index[at]}: has {widths[at]} values, where the feature spec has "
            f"a size of {feature.size}: a vector has as many, or is missing. If it is a list whose "
            f'last {feature.size} count, give the feature "keep": "last"'
        )
    return int((widths == 0).sum())


def _last_of_each(numbers: NDArray[Any], offsets: IntArray, feature: Feature) -> NDArray[Any]:
    """(rows, size), as `last_of_each` lays them out; the default also for what a list lacks."""
    rows = len(offsets) - 1
    table = np.empty((rows, feature.size), numbers.dtype)
    for start in range(0, rows, CHUNK_ROWS):
        part = offsets[start : start + CHUNK_ROWS + 1]
        table[start : start + CHUNK_ROWS] = last_of_each(numbers, part, feature)
    if numbers.dtype.kind == "f":
        np.copyto(table, feature.default_cells, where=np.isnan(table))
    return table


def smallest(numbers: IntArray, defaults: IntArray) -> NDArray[Any]:
    """As int32 where all of them fit, which takes half the room, and the defaults, which stand in
    for rows that aren't there."""
    both = [each for each in (numbers, defaults) if each.size]
    fits = all(each.min() >= INT32.min and each.max() <= INT32.max for each in both)
    return numbers.astype(np.int32) if fits else numbers
