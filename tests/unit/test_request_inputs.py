"""The matrix of past requests, compared with rows looked up by hand in the plain tables."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import demo
from feedmodel.publish.tables import FeatureTables, read_tables
from feedmodel.training.matrix import request_inputs
from feedrank.errors import InvalidRequestError
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

UNKNOWN = 1_000_000
START_S = 1_780_272_000  # Monday 2026-06-01, 00:00 UTC
REQUESTS = pd.DataFrame(
    [
        (user_id, item_id, START_S + 7_300 * number, device)
        for number, (user_id, device) in enumerate(
            [(3, "mobile"), (3, "tv"), (UNKNOWN, "desktop"), (200, None), (17, "tablet")] * 12
        )
        for item_id in (1 + 7 * number % 300, 300 - number, UNKNOWN, 42)
    ],
    columns=["user_id", "item_id", "time_s", "device"],
)


def tables_of(spec: FeatureSpec, directory: Path) -> FeatureTables:
    paths = {name: directory / f"{name}.parquet" for name in ("users", "items", "pairs")}
    for name, table in demo.demo_tables().items():
        table.to_parquet(paths[name])
    return read_tables(spec, paths)  # type: ignore[arg-type]


def expected_rows(requests: pd.DataFrame) -> np.ndarray:
    """(rows, 15), each looked up alone."""
    rows = []
    for user_id, item_id, time_s, device in requests.itertuples(index=False):
        at = datetime.fromtimestamp(time_s, UTC)
        known = None if pd.isna(device) else device
        rows.append(demo.features_of(user_id, [item_id], known, at.hour, at.weekday())[0].numpy())
    return np.array(rows)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return expected_rows(REQUESTS)


@pytest.mark.parametrize(
    ("spec", "columns"),
    [
        (demo.demo_spec(), {"features": tuple(range(15))}),
        (
            demo.two_tower_spec(),
            {"user_features": demo.USER_AT, "item_features": demo.ITEM_AT},
        ),
    ],
    ids=["one input", "one of two per request"],
)
@pytest.mark.parametrize("order", ["by request", "shuffled"])
def test_each_row_is_what_the_tables_and_the_context_say(
    spec: dict[str, Any],
    columns: dict[str, tuple[int, ...]],
    order: str,
    expected: np.ndarray,
    tmp_path: Path,
) -> None:
    parsed = parse_spec(spec)
    at = np.arange(len(REQUESTS))
    if order == "shuffled":
        at = np.random.default_rng(0).permutation(at)
    inputs = request_inputs(parsed, tables_of(parsed, tmp_path), REQUESTS.iloc[at])
    assert {name: matrix.dtype for name, matrix in inputs.items()} == dict.fromkeys(
        columns, np.float32
    )
    for name, matrix in inputs.items():
        np.testing.assert_array_equal(matrix, expected[at][:, columns[name]])


def test_no_requests_have_no_rows(tmp_path: Path) -> None:
    spec = parse_spec(demo.demo_spec())
    inputs = request_inputs(spec, tables_of(spec, tmp_path), REQUESTS[:0])
    assert {name: matrix.shape for name, matrix in inputs.items()} == {"features": (0, 15)}


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        (REQUESTS.drop(columns=["device", "time_s"]), "lack the column time_s, device"),
        (REQUESTS.astype({"item_id": float}), "item_id must hold whole numbers, in every row"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(
    requests: pd.DataFrame, message: str, tmp_path: Path
) -> None:
    spec = parse_spec(demo.demo_spec())
    with pytest.raises(ValueError, match=message):
        request_inputs(spec, tables_of(spec, tmp_path), requests)


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": "text"},
        {"inputs": [{"name": "x", "features": [{"name": "c", "source": "candidate"}]}]},
    ],
    ids=["text ids", "candidate features"],
)
def test_a_spec_that_needs_more_than_the_table_has_is_refused(changes: dict[str, Any]) -> None:
    spec = parse_spec(demo.demo_spec() | changes)
    with pytest.raises(ValueError, match="text ids or candidate features can't be read yet"):
        request_inputs(spec, {}, REQUESTS)


def test_a_context_value_that_serving_refuses_is_refused() -> None:
    feature = {"name": "basket", "source": "context", "expression": "number(basket)"}
    spec = parse_spec({"inputs": [{"name": "x", "features": [feature]}]})
    requests = pd.DataFrame({"user_id": [1], "item_id": [2], "time_s": [0], "basket": ["full"]})
    with pytest.raises(InvalidRequestError):
        request_inputs(spec, read_tables(spec, {}), requests)
