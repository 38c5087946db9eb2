"""Training rows with unknown ids equal what serving builds for them."""

from collections.abc import Callable

import numpy as np
import pytest

from feedmodel.demo.features import training_columns
from feedmodel.demo.feed import generate_feed
from feedmodel.demo.specs import Priors, deep_mlp_spec, two_tower_spec
from feedmodel.training.matrix import FeatureColumns, column_inputs
from feedmodel.training.unknown import SHARE_IN_TRAINING, partly_unknown, with_unknown
from feedrank.domain import FeatureRows, Query
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec import FeatureSpec, Source

PRIOR = Priors(ctr=0.125, dwell_s=20.0, device="mobile", age_days=25.0)
FEED = generate_feed(40, 200, 6_000, seed=5)
COLUMNS = training_columns(FEED, PRIOR)
ROWS = len(FEED.clicked)

make_specs = pytest.mark.parametrize("make_spec", [deep_mlp_spec, two_tower_spec])


def changed(spec: FeatureSpec, columns: FeatureColumns, source: Source) -> np.ndarray:
    """(rows,): whether any column of that source is another than in COLUMNS."""
    names = [feature.name for feature in spec.columns(source)]
    return np.any([columns[name] != COLUMNS[name] for name in names], axis=0)


@make_specs
@pytest.mark.parametrize("source", ["user", "item"])
def test_an_unknown_row_is_what_serving_builds_for_an_id_that_no_table_has(
    make_spec: Callable[[Priors], FeatureSpec], source: str
) -> None:
    spec, row = make_spec(PRIOR), 5_000

    def table(of: Source) -> np.ndarray:
        if of in {source, "pair"}:
            return spec.defaults(of)
        names = [feature.name for feature in spec.columns(of)]
        return np.array([COLUMNS[name][row] for name in names], dtype=np.float32)

    rows = FeatureRows(
        user=table("user"),
        items=table("item")[None],
        pairs=table("pair")[None],
        unknown_user=source == "user",
        unknown_items=np.array([source == "item"]),
    )
    query = Query(
        int(FEED.user_id[row]),
        [int(FEED.item_id[row])],
        {"device": str(FEED.device[row])},
        float(FEED.time_s[row]),
    )
    served = MatrixBuilder(spec).build(query, rows)
    unknown = with_unknown(spec, COLUMNS, source, np.arange(ROWS) == row)  # type: ignore[arg-type]
    assert {name: matrix.tolist() for name, matrix in served.items()} == {
        name: matrix[row : row + 1].tolist()
        for name, matrix in column_inputs(spec, unknown).items()
    }


@make_specs
def test_a_share_of_users_and_items_is_unknown_and_the_rest_unchanged(
    make_spec: Callable[[Priors], FeatureSpec],
) -> None:
    spec = make_spec(PRIOR)
    columns = partly_unknown(spec, COLUMNS, seed=3)
    users, items = changed(spec, columns, "user"), changed(spec, columns, "item")
    assert 0.7 < users.mean() / SHARE_IN_TRAINING <= 1.3
    assert 0.7 < items.mean() / SHARE_IN_TRAINING <= 1.3
    assert 0 < (users & items).sum() < users.sum() / 5  # sometimes both
    for feature in spec.columns("context"):
        assert np.array_equal(columns[feature.name], COLUMNS[feature.name])


def test_the_seed_determines_which_rows() -> None:
    spec = deep_mlp_spec(PRIOR)
    first, again, other = (partly_unknown(spec, COLUMNS, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["item_ctr"], other["item_ctr"])
