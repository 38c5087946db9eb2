"""Columns of any type become float32, or are refused with a reason."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feedmodel.errors import PublishError
from feedmodel.publish.tables import FeatureTable, read_tables
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

TWO_24 = 2**24
DEFAULT = -7.5


def spec(default: float = DEFAULT) -> FeatureSpec:
    feature = {"name": "price", "source": "item", "default": default}
    return parse_spec({"inputs": [{"name": "x", "features": [feature]}]})


def read(price: Any, tmp_path: Path, suffix: str = "parquet", **ids: Any) -> FeatureTable:
    path = tmp_path / f"items.{suffix}"
    frame = pd.DataFrame({"item_id": ids.get("item_id", range(len(price))), "price": price})
    frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path)
    return read_tables(spec(), {"items": path})["items"]


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ([1, TWO_24], [1, TWO_24]),
        ([TWO_24 + 2, -(2**62)], [TWO_24 + 2, -(2**62)]),  # float32 holds these
        ([0.1, 1e9 + 0.5], np.float32([0.1, 1e9 + 0.5])),
        (np.float32([TWO_24 + 1.0]), [TWO_24]),  # rounded before it was stored
        ([True, False], [1, 0]),
        ([True, None], [1, DEFAULT]),
        ([Decimal("1.5"), None], [1.5, DEFAULT]),
        (pd.array([3, None], dtype="Int64"), [3, DEFAULT]),
        ([None, None], [DEFAULT, DEFAULT]),
        ([float("nan"), 2.5], [DEFAULT, 2.5]),
    ],
    ids=str,
)
def test_numbers_are_read_as_float32_and_empty_cells_as_the_default(
    price: Any, expected: Any, tmp_path: Path
) -> None:
    assert read(price, tmp_path).values[:, 0].tolist() == list(map(float, expected))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    "price",
    [
        [1, TWO_24 + 1],
        [1.0, TWO_24 + 1.0],
        [None, TWO_24 + 1],
        [0, 1_780_488_001],
        [0, 2**53 + 1],
        [0, 2**63 - 1],
        [0, 2**64 - 1],
    ],
    ids=str,
)
def test_whole_numbers_that_float32_would_change_are_refused(
    price: list[Any], suffix: str, tmp_path: Path
) -> None:
    with pytest.raises(PublishError) as refusal:
        read(price, tmp_path, suffix)
    assert f"items.{suffix}: column price: {int(price[1])} becomes " in str(refusal.value)
    assert "days instead of seconds" in str(refusal.value)


def test_a_default_that_float32_would_change_is_refused() -> None:
    with pytest.raises(PublishError, match=r"the default of price: 16777217 becomes 16777216 in"):
        read_tables(spec(default=TWO_24 + 1), {})


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ([pd.Timestamp("2026-01-01")], "holds dates; .* days since"),
        (pd.to_datetime(["2026-01-01"], utc=True), "holds dates"),
        ([date(2026, 1, 1), None], "holds dates"),
        (pd.to_timedelta(["3s"]), "holds dates"),
        (["cheap"], "holds text: features must be numbers"),
        (["1.5", None], "holds text"),
        (pd.Categorical(["a"]), "holds categories"),
        ([[1.0, 2.0]], "holds mixed values"),
        ([float("inf")], "must be finite"),
        ([1e300], "must be finite"),
    ],
    ids=str,
)
def test_a_column_without_numbers_is_named(price: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=rf"items\.parquet: column price:? {message}|{message}"):
        read(price, tmp_path)


def test_empty_cells_are_counted_by_column(tmp_path: Path) -> None:
    assert read([1.0, None, None], tmp_path).missing == {"price": 2}
    assert read([1.0], tmp_path).missing == {}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_an_id_beyond_63_bits_is_refused_and_does_not_wrap(suffix: str, tmp_path: Path) -> None:
    ids = np.array([1, 2**63 + 5], dtype=np.uint64)
    with pytest.raises(PublishError, match=r"item_id holds 9223372036854775813, the largest id is"):
        read([1.0, 2.0], tmp_path, suffix, item_id=ids)
    largest = np.array([1, 2**63 - 1], dtype=np.uint64)
    assert read([1.0, 2.0], tmp_path, suffix, item_id=largest).ids[-1].tolist() == [2**63 - 1]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"nowhere/items\.parquet: there is no such file"):
        read_tables(spec(), {"items": tmp_path / "nowhere/items.parquet"})


def test_rows_are_sorted_by_id(tmp_path: Path) -> None:
    table = read([3.0, 1.0, 2.0], tmp_path, item_id=[30, 10, 20])
    assert (table.ids[:, 0].tolist(), table.values[:, 0].tolist()) == ([10, 20, 30], [1, 2, 3])


def test_a_list_of_defaults_fills_each_place_that_has_no_value(tmp_path: Path) -> None:
    defaults = [0.25, 0.5, 0.75]
    feature = {"name": "taste", "source": "user", "size": 3, "keep": "last", "default": defaults}
    table = tmp_path / "users.parquet"
    pd.DataFrame(
        {"user_id": [1, 2, 3], "taste": [[1.0, 2.0, float("nan"), 4.0], [9.0], None]}
    ).to_parquet(table)
    spec = parse_spec({"inputs": [{"name": "x", "features": [feature]}]})
    assert read_tables(spec, {"users": table})["users"].values.tolist() == [
        [2.0, 0.5, 4.0],
        [0.25, 0.5, 9.0],
        [0.25, 0.5, 0.75],
    ]
