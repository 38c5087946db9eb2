from datetime import UTC, datetime

import numpy as np
import pytest

import demo
from feedrank.domain import FeatureRows, FloatArray, Query
from feedrank.errors import InvalidRequestError
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec_reader import parse_spec

SUNDAY_SIX = datetime(2026, 11, 22, 18, 30, tzinfo=UTC).timestamp()


def _rows(user: FloatArray, items: FloatArray, pairs: FloatArray) -> FeatureRows:
    """Of a user and items that are all known."""
    return FeatureRows(user, items, pairs, False, np.zeros(len(items), np.bool_))


ROWS = _rows(
    user=np.array([1, 2, 3, 4], np.float32),
    items=np.array([[11, 12, 13, 14], [21, 22, 23, 24]], np.float32),
    pairs=np.array([[5], [6]], np.float32),
)


def _query(**context: str) -> Query:
    return Query(1, [7, 8], context, SUNDAY_SIX)


def _none(*shape: int) -> FloatArray:
    return np.empty(shape, np.float32)


def test_the_demos_15_features_keep_their_order() -> None:
    built = MatrixBuilder(parse_spec(demo.demo_spec())).build(_query(device="desktop"), ROWS)
    assert list(built) == ["features"]
    assert built["features"].tolist() == [
        [1, 2, 3, 4, 11, 12, 13, 14, 18, 6, 0, 1, 0, 5, 1],
        [1, 2, 3, 4, 21, 22, 23, 24, 18, 6, 0, 1, 0, 6, 1],
    ]
    assert built["features"].dtype == np.float32
    assert built["features"].flags.c_contiguous


def test_a_per_request_input_has_one_row() -> None:
    built = MatrixBuilder(parse_spec(demo.two_tower_spec())).build(_query(device="tablet"), ROWS)
    assert {name: rows.tolist() for name, rows in built.items()} == {
        "user_features": [[1, 2, 3, 4, 18, 6, 0, 0, 1, 1]],
        "item_features": [[11, 12, 13, 14], [21, 22, 23, 24]],
    }


def test_a_context_key_that_is_left_out_gives_each_features_default() -> None:
    built = MatrixBuilder(parse_spec(demo.demo_spec())).build(_query(), ROWS)
    assert built["features"][:, 10:13].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_an_unknown_device_is_none_of_the_known_ones() -> None:
    built = MatrixBuilder(parse_spec(demo.demo_spec())).build(_query(device="fridge"), ROWS)
    assert built["features"][:, 10:13].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_an_input_takes_its_columns_from_a_shared_table_in_its_own_order() -> None:
    a, b, c = ({"name": name, "source": "item"} for name in "abc")
    spec = parse_spec(
        {"inputs": [{"name": "x", "features": [a, b, c]}, {"name": "y", "features": [c, a]}]}
    )
    rows = _rows(_none(0), np.array([[1, 2, 3]], np.float32), _none(1, 0))
    built = MatrixBuilder(spec).build(Query(1, [9], {}, 0.0), rows)
    assert {name: matrix.tolist() for name, matrix in built.items()} == {
        "x": [[1, 2, 3]],
        "y": [[3, 1]],
    }


def test_building_a_matrix_does_not_change_the_rows() -> None:
    before = [ROWS.user.copy(), ROWS.items.copy(), ROWS.pairs.copy()]
    MatrixBuilder(parse_spec(demo.demo_spec())).build(_query(), ROWS)["features"][:] = 0
    after = [ROWS.user, ROWS.items, ROWS.pairs]
    assert all(np.array_equal(b, a) for b, a in zip(before, after, strict=True))


def test_a_text_that_is_not_a_number_is_the_callers_error() -> None:
    temp = {"name": "t", "source": "context", "expression": "number(temp)", "default": 20}
    builder = MatrixBuilder(parse_spec({"inputs": [{"name": "x", "features": [temp]}]}))
    rows = _rows(_none(0), _none(2, 0), _none(2, 0))
    assert builder.build(_query(), rows)["x"].tolist() == [[20], [20]]
    assert builder.build(_query(temp="-3.5"), rows)["x"].tolist() == [[-3.5], [-3.5]]
    with pytest.raises(InvalidRequestError, match=r"context\.temp must be a number"):
        builder.build(_query(temp="warm"), rows)
