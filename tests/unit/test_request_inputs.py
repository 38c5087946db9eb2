"""The matrix of past requests, compared with rows looked up by hand in the plain tables."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import demo
import zoo
from feedmodel.errors import PublishError
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
    columns=["user_id", "item_id", "timestamp", "device"],
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
        (REQUESTS.drop(columns=["device", "timestamp"]), "lacks the column timestamp, device"),
        (REQUESTS.astype({"item_id": float}), "item_id must hold whole numbers, in every row"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(
    requests: pd.DataFrame, message: str, tmp_path: Path
) -> None:
    spec = parse_spec(demo.demo_spec())
    with pytest.raises(PublishError, match=message):
        request_inputs(spec, tables_of(spec, tmp_path), requests)


def test_a_context_value_that_serving_refuses_is_refused() -> None:
    feature = {"name": "basket", "source": "context", "expression": "number(basket)"}
    spec = parse_spec({"inputs": [{"name": "x", "features": [feature]}]})
    requests = pd.DataFrame({"user_id": [1], "item_id": [2], "basket": ["full"]})
    with pytest.raises(InvalidRequestError):
        request_inputs(spec, read_tables(spec, {}), requests)


NOON_S = 1_790_000_000


def _impressions(known: zoo.Known) -> list[zoo.Impression]:
    """Known and unknown users and items, with and without what a caller knows of them."""
    reads = any(f["source"] == "candidate" for i in known.spec["inputs"] for f in i["features"])
    impressions = []
    for number, user in enumerate([*range(0, zoo.USERS, 3), 10_000]):
        items = [*range(number, zoo.ITEMS + 2, 1 + number)]
        sent = {"retrieval_score": [item / 64 for item in items]} if reads and number % 2 else {}
        named: Any = f"user-{user}" if known.text_ids else user
        films = [zoo.film(item) for item in items] if known.text_ids else items
        impressions.append(zoo.Impression(named, films, {}, NOON_S + number * 7_211, sent))
    return impressions


def _table(impressions: list[zoo.Impression]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"user_id": s.user, "item_id": item, "timestamp": s.time_s}
            | {name: values[at] for name, values in s.candidates.items()}
            for s in impressions
            for at, item in enumerate(s.items)
        ]
    )


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_inputs_of_known_models_are_what_a_team_lays_out_cell_by_cell(
    name: str, tmp_path: Path
) -> None:
    known = zoo.ZOO[name]
    frames = zoo.tables(text_ids=known.text_ids)
    paths = {table: tmp_path / f"{table}.parquet" for table in frames}
    for table, frame in frames.items():
        frame.to_parquet(paths[table])
    entries = [
        entry
        | ({"shape": list(known.shapes[entry["name"]])} if entry["name"] in known.shapes else {})
        for entry in known.spec["inputs"]
    ]
    spec = parse_spec(known.spec | {"inputs": entries})
    impressions = _impressions(known)
    built = request_inputs(spec, read_tables(spec, paths), _table(impressions))  # type: ignore[arg-type]
    tensors = [zoo.inputs(known, frames, each) for each in impressions]
    for at, input_ in enumerate(spec.inputs):
        expected = [tensor[at].numpy() for tensor in tensors]
        if input_.per == "request":
            rows = [array[0] if array.shape[0] == 1 else array for array in expected]
            expected = [
                np.repeat(row[np.newaxis], len(each.items), axis=0)
                for row, each in zip(rows, impressions, strict=True)
            ]
        assert built[input_.name].dtype == expected[0].dtype
        np.testing.assert_array_equal(built[input_.name], np.concatenate(expected))
