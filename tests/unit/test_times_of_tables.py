"""Columns of times, as they come: each is the moment that it says, or is refused."""

import re
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feedmodel.errors import PublishError
from feedmodel.publish.cells import time_cells

NEW_YEAR_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "seconds"),
    [
        (["2026-01-01", "", None], [NEW_YEAR_S, NAN, NAN]),
        (["2026-01-01", "NaT"], [NEW_YEAR_S, NAN]),
        (["2026-01-01", "2026-01-01T02:00:00+02:00"], [NEW_YEAR_S, NEW_YEAR_S]),
        ([date(2026, 1, 1), None], [NEW_YEAR_S, NAN]),
        (pd.Categorical(["2026-01-01", None]), [NEW_YEAR_S, NAN]),
        (pd.to_datetime(["2026-01-01T01:00"]).tz_localize("Europe/Berlin"), [NEW_YEAR_S]),
        (pd.array([int(NEW_YEAR_S), None], dtype="Int64"), [NEW_YEAR_S, NAN]),
        (np.array([int(NEW_YEAR_S), None], dtype=object), [NEW_YEAR_S, NAN]),
        ([None, None], [NAN, NAN]),
    ],
    ids=str,
)
def test_a_time_is_read_as_it_is_written_and_an_empty_one_is_missing(
    column: Any, seconds: list[float]
) -> None:
    cells = time_cells(pd.Series(column), "items")
    np.testing.assert_array_equal(cells.rows[:, 0], seconds)
    assert cells.missing == int(np.isnan(seconds).sum())


@pytest.mark.parametrize(
    "unit", ["datetime64[s]", "datetime64[ms]", "datetime64[us]", "datetime64[ns]"]
)
def test_a_date_of_any_unit_is_the_same_moment(unit: str) -> None:
    column = pd.Series(pd.to_datetime(["2026-01-01"])).astype(unit)
    assert time_cells(column, "items").rows.tolist() == [[NEW_YEAR_S]]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([NEW_YEAR_S * 1_000], "holds 1.76723e+12: numbers are Unix seconds"),
        ([NAN, float("inf")], "holds inf: numbers are Unix seconds"),
        (["03/04/2026"], "needs times: dates, ISO 8601 texts"),
        ([True], "needs times"),
    ],
    ids=str,
)
def test_a_time_that_could_be_another_is_refused(column: Any, says: str) -> None:
    with pytest.raises(PublishError, match=re.escape(says)):
        time_cells(pd.Series(column), "items")
