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
MOST_EXACT = 2**24  # the whole numbers that float32 holds, all of them


def float32_column(series: pd.Series, place: str) -> FloatArray:
    """(rows,) float32, NaN where a cell is missing. `place` begins the text of a PublishError,
    raised for what is no number, is not finite, or is a whole number that float32 would change.
    """
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if kind in DATES:
        raise PublishError(
            f"{place} holds dates; give the model a number in their place, such as the days since "
            "a fixed date or the hour of the day"
        )
    if kind not in NUMBERS:
        what = {"string": "text", "categorical": "categories"}.get(kind, f"{kind} values")
        raise PublishError(
            f"{place} holds {what}: features must be numbers, such as a column of 0 and 1 for "
            "each of its values"
        )
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
    """A default is a cell, too. Raises PublishError."""
    if value is None:
        return
    exact = np.array([value])
    _check_whole_numbers(exact, exact.astype(np.float32), place)


def _check_whole_numbers(exact: NDArray[Any], rounded: FloatArray, place: str) -> None:
    """An id or a time in seconds means each of its digits; of a real number, rounding takes less
    than its own noise."""
    if exact.dtype.kind == "f" and exact.dtype.itemsize == rounded.itemsize:
        return
    with np.errstate(invalid="ignore"):
        changed = rounded.astype(exact.dtype) != exact
    if exact.dtype.kind in "iu":  # beyond its range the cast back may give anything
        changed |= rounded >= float(np.iinfo(exact.dtype).max)
    if not changed.any() or not _is_whole(exact):
        return
    example = exact[changed][0]
    raise PublishError(
        f"{place}: {int(example)} becomes {int(rounded[changed][0])} in float32, which holds whole "
        f"numbers exactly only up to {MOST_EXACT:,}; subtract an origin, divide (days instead of "
        "seconds), or take the logarithm of a count. Where rounding does no harm, store the column "
        "as float32"
    )


def _is_whole(numbers: NDArray[Any]) -> bool:
    return numbers.dtype.kind in "iu" or bool((np.trunc(numbers) == numbers).all())
