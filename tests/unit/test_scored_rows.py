"""Which rows of large tables are compared, and which difference is found."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from feedmodel.errors import PublishError
from feedmodel.publish import rows
from feedmodel.publish.rows import check_rows
from feedmodel.publish.scorers import Scorers
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import FeatureTable, FeatureTables
from feedrank.domain import FloatArray
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

USERS, PAIRS, MOST = 1_000, 3_000, 10
RANDOM = np.random.default_rng(3)


class Counting:
    """Gives the sum of an item's row, and keeps what it was asked for; torch differs at 7."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        self.rows += map(tuple, inputs["x"].tolist())
        return self.torch(inputs) + (self._request(inputs) == 7).astype(np.float32)

    def torch(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        scores: FloatArray = inputs["x"].sum(1) + self._request(inputs)
        return scores

    def _request(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        return inputs["who"][:, 0] if "who" in inputs else np.zeros(len(inputs["x"]), np.float32)


def _table(ids: Any, *columns: Any) -> FeatureTable:
    values = np.array(columns, np.float32).T if columns else np.empty((len(ids), 0), np.float32)
    keys = np.array(ids)
    return FeatureTable(keys[:, np.newaxis] if keys.ndim == 1 else keys, values)


def _scorers(spec: FeatureSpec, tables: FeatureTables, engine: Counting, folder: Path) -> Scorers:
    write_snapshot(tables, folder / "features.safetensors")
    store = SnapshotStore(folder / "features.safetensors", spec)
    matrix = MatrixBuilder(spec)
    stand_in = SimpleNamespace(
        spec=spec,
        per_item={each.name for each in spec.inputs if each.per == "item"},
        inputs=lambda query: matrix.build(query, store.look_up(query)),
        onnx=engine,
        torch=engine.torch,
    )
    return cast("Scorers", stand_in)


def _of_users(ages: Any, folder: Path) -> dict[str, str]:
    """Users with an input of one row a request, and one item."""
    who = {"name": "who", "per": "request", "features": [{"name": "age", "source": "user"}]}
    x = {"name": "x", "features": [{"name": "price", "source": "item"}]}
    spec = parse_spec({"inputs": [who, x], "range": None})
    tables: FeatureTables = {
        "users": _table(range(len(ages)), ages), "items": _table([1], [2.0]),
        "pairs": _table(np.empty((0, 2), np.int64)),
    }  # fmt: skip
    scorers = _scorers(spec, tables, Counting(), folder)
    return check_rows(scorers, tables, lambda _: None, batches=False)


def test_of_many_users_in_requests_of_their_own_some_are_scored_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_ALONE", MOST)
    ages = RANDOM.uniform(0, 6, USERS)
    said = _of_users(ages, tmp_path)
    assert said == {"users scored": "12 of 1,000, each in a request of its own"}
    assert _of_users(ages[:MOST], tmp_path) == {}


@pytest.mark.parametrize("user", [313, 888])
def test_the_user_with_the_largest_value_is_one_of_them(
    user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_ALONE", MOST)
    ages = RANDOM.uniform(0, 6, USERS)
    ages[user] = 7
    with pytest.raises(PublishError, match=rf"table users, user_id {user}: torch gives 9, ONNX"):
        _of_users(ages, tmp_path)


@pytest.mark.parametrize("batches", [True, False])
def test_every_different_pair_is_scored_once(tmp_path: Path, *, batches: bool) -> None:
    features = [{"name": name, "source": "pair"} for name in ("seen", "bought")]
    spec = parse_spec({"inputs": [{"name": "x", "features": features}], "range": None})
    columns = RANDOM.integers(0, 12, (2, PAIRS))
    tables: FeatureTables = {
        "users": _table(np.empty((0, 1), np.int64)), "items": _table(np.empty((0, 1), np.int64)),
        "pairs": _table([[n // 50, n % 50] for n in range(PAIRS)], *columns),
    }  # fmt: skip
    engine = Counting()
    scorers = _scorers(spec, tables, engine, tmp_path)
    check_rows(scorers, tables, lambda _: None, batches=batches)
    assert sorted(engine.rows) == sorted({*zip(*columns.tolist(), strict=True)})
