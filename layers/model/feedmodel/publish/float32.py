"""A table's column as the float32 numbers that a model reads, or the reason why it can't be."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedrank.domain import FloatArray

NUMBERS = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"}
DATES = {
    "datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period",
}  # fmt: skip
MAX_EXACT = 2**24  # float32 holds all whole numbers up to this one
MAX_FLOAT16 = 65_504


def float32_column(series: pd.Series, place: str) -> FloatArray:
    """(rows,) float32, NaN where a cell is missing.

    Raises PublishError, whose text starts with `place`, for a value that is no number, is not
    finite, or is a whole number that float32 would change.
    """
    _check_kind(series, place)
    present = series.dropna()
    # Integers beyond 2**53 would already be rounded as float64.
    exact = present.to_numpy() if series.dtype.kind in "iu" else present.to_numpy(dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise PublishError(f"{place}: features must be finite, and at most 3.4e38 in size")
    _check_whole_numbers(exact, rounded, place)
    if len(rounded) == len(series):
        return rounded
    values = np.full(len(series), np.nan, dtype=np.float32)
    values[series.notna().to_numpy()] = rounded
    return values


def check_default(value: float | None, place: str) -> None:
    """The same check for a feature's default. Raises PublishError."""
    if value is None:
        return
    exact = np.array([value])
    _check_whole_numbers(exact, exact.astype(np.float32), place)


def check_float16(values: FloatArray, place: str) -> None:
    """Raises PublishError for a number that is too large for float16."""
    large = np.abs(values) > MAX_FLOAT16
    if large.any():
        raise PublishError(
            f"{place} holds {values[large][0]:g}; float16 ends at {MAX_FLOAT16:,}: divide it, or "
            'leave "store" out of the feature spec'
        )


def _check_kind(series: pd.Series, place: str) -> None:
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if kind in DATES:
        raise PublishError(
            f"{place} holds dates; replace them by numbers, such as the days since a fixed date "
            "or the hour of the day"
        )
    if kind not in NUMBERS:
        content = {"string": "text", "categorical": "categories"}.get(kind, f"{kind} values")
        raise PublishError(
            f"{place} holds {content}: features must be numbers, such as a column of 0 and 1 for "
            "each of its values"
        )


def _check_whole_numbers(exact: NDArray[Any], rounded: FloatArray, place: str) -> None:
    """Every digit of an id or of a time in seconds matters; a real number loses less by rounding
    than its own noise."""
    if exact.dtype.kind == "f" and exact.dtype.itemsize == rounded.itemsize:
        return
    with np.errstate(invalid="ignore"):
        changed = rounded.astype(exact.dtype) != exact
    if exact.dtype.kind in "iu":  # casting back is undefined beyond the integer's range
        changed |= rounded >= float(np.iinfo(exact.dtype).max)
    if not changed.any() or not _is_whole(exact):
        return
    example = exact[changed][0]
    raise PublishError(
        f"{place}: {int(example)} becomes {int(rounded[changed][0])} in float32, which holds whole "
        f"numbers exactly only up to {MAX_EXACT:,}; subtract an origin, divide (days instead of "
        "seconds), or take the logarithm of a count. Where rounding does no harm, store the column "
        "as float32"
    )


def _is_whole(numbers: NDArray[Any]) -> bool:
    return numbers.dtype.kind in "iu" or bool((np.trunc(numbers) == numbers).all())
