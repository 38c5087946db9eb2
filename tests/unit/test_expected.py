"""A bundle compared with the scores that the team's own evaluation gave."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from feedmodel.errors import PublishError
from feedmodel.publish import expected
from feedrank.domain import FeatureRows, Query
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import ContextKeys
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec_reader import parse_spec

SPEC = parse_spec(
    {
        "inputs": [{"name": "x", "features": [
            {"name": "age", "source": "user", "default": 30.0},
            {"name": "price", "source": "item", "default": 1.0},
            {"name": "tv", "source": "context", "expression": "equals(device, tv)"},
            {"name": "hour", "source": "context", "expression": "hour"},
            {"name": "retrieval", "source": "candidate"}]}],
        "range": None,
    }
)  # fmt: skip
WEIGHTS = np.array([0.01, 0.3, 0.2, 0.05, 1.0])
USERS, ITEMS = {1: 20.0, 2: 40.0}, {7: 3.0, 8: 5.0, 9: 8.0}


class Linear:
    """The model is a weighted sum, so that what it should give can be said without it."""

    def __init__(self, directory: Path) -> None:
        tensors = {
            "users.ids": np.array(list(USERS)),
            "users.values": np.array([[v] for v in USERS.values()], np.float32),
            "items.ids": np.array(list(ITEMS)),
            "items.values": np.array([[v] for v in ITEMS.values()], np.float32),
            "pairs.users": np.empty(0, np.int64),
            "pairs.starts": np.zeros(1, np.int64),
            "pairs.items": np.empty(0, np.int64),
            "pairs.values": np.empty((0, 0), np.float32),
        }
        (directory / "f").write_bytes(save(tensors))
        self.spec = SPEC
        self.candidates, self.context = CandidateFeatures(SPEC), ContextKeys(SPEC)
        self._store, self._matrix = SnapshotStore(directory / "f", SPEC), MatrixBuilder(SPEC)

    def look_up(self, query: Query) -> FeatureRows:
        return self._store.look_up(query)

    def inputs(self, query: Query) -> dict[str, NDArray[Any]]:
        return self._matrix.build(query, self._store.look_up(query))

    def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = (inputs["x"] @ WEIGHTS).astype(np.float32)
        return scores


def _file(directory: Path, team: Callable[..., float] | None = None, **columns: Any) -> Path:
    """Both users with all items and one that nobody knows, at noon, on a TV."""
    rows = [
        {"user_id": user, "item_id": item, "timestamp": "2026-11-25T12:00:00Z", "device": "tv",
         "retrieval": item / 10} for user in USERS for item in (*ITEMS, 99)
    ]  # fmt: skip
    for row in rows:
        user, item = USERS[row["user_id"]], ITEMS.get(row["item_id"], 1.0)
        values = {
            "age": user,
            "price": item,
            "tv": 1.0,
            "hour": 12.0,
            "retrieval": row["retrieval"],
        }
        row["score"] = (team or _right)(**values)
    frame = pd.DataFrame(rows).assign(**columns)
    path = directory / "scores.parquet"
    frame.to_parquet(path)
    return path


def _right(**values: float) -> float:
    return float(WEIGHTS @ np.array(list(values.values())))


def test_scores_that_agree_are_counted(tmp_path: Path) -> None:
    agreement = expected.compare(Linear(tmp_path), _file(tmp_path))
    assert (agreement.rows, agreement.requests) == (8, 2)
    assert 0 <= agreement.apart < 1e-6


@pytest.mark.parametrize(
    ("feature", "changed", "says"),
    [
        ("age", lambda v: v / 60, "if age were a 60th of it"),
        ("price", np.log1p, "if price were log1p of it"),
        ("hour", lambda v: v + 1, "if hour were one more"),
        ("tv", lambda v: 0 * v, "if tv were "),
    ],
)
def test_a_feature_of_another_unit_is_named(
    feature: str, changed: Callable[[float], float], says: str, tmp_path: Path
) -> None:
    def score(**values: float) -> float:
        return _right(**values | {feature: float(changed(values[feature]))})

    with pytest.raises(PublishError) as error:
        expected.compare(Linear(tmp_path), _file(tmp_path, score))
    first, *lines = str(error.value).splitlines()
    assert first.startswith("scores.parquet: 8 of 8 scores differ by more than 1e-05, by ")
    assert says in lines[-1]
    assert len(lines) == expected.SHOWN + 1


def test_what_the_rows_that_differ_have_in_common_is_named(tmp_path: Path) -> None:
    """The team's default of an unknown item's price is another."""

    def score(**values: float) -> float:
        return _right(**values) + (0.123 if values["price"] == 1.0 else 0.0)

    with pytest.raises(PublishError) as error:
        expected.compare(Linear(tmp_path), _file(tmp_path, score))
    lines = str(error.value).splitlines()
    assert "item_id 99, timestamp 2026-11-25T12:00:00Z, device tv" in lines[1]
    assert lines[-1] == (
        "rows of unknown items (is a default of price another?) differ, and nearly no other"
    )


def test_a_score_that_is_not_a_number_agrees_with_nothing(tmp_path: Path) -> None:
    linear = Linear(tmp_path)
    linear.score = lambda inputs: np.full(len(inputs["x"]), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(PublishError, match="8 of 8 scores differ"):
        expected.compare(linear, _file(tmp_path))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"devise": "tv"}, "this model reads nothing of devise; beside user_id, item_id, score"),
        ({"score": np.nan}, "score must be finite in every row"),
        ({"score": "high"}, "score must be numbers"),
        ({"retrieval": "high"}, "features.retrieval: must be numbers"),
    ],
)
def test_a_file_that_can_not_be_compared_is_refused(
    columns: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(PublishError) as error:
        expected.compare(Linear(tmp_path), _file(tmp_path, None, **columns))
    assert says in str(error.value)


def test_a_model_that_reads_the_time_needs_the_time(tmp_path: Path) -> None:
    path = _file(tmp_path)
    pd.read_parquet(path).drop(columns="timestamp").to_parquet(path)
    with pytest.raises(PublishError, match="timestamp is needed, as the model reads the time"):
        expected.compare(Linear(tmp_path), path)


def test_a_column_that_the_file_lacks_is_named_where_scores_differ(tmp_path: Path) -> None:
    path = _file(tmp_path)
    pd.read_parquet(path).drop(columns="device").to_parquet(path)
    with pytest.raises(PublishError) as error:
        expected.compare(Linear(tmp_path), path)
    assert "the file has no column device, which the model reads: " in str(error.value)


def test_a_request_that_a_container_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError) as error:
        expected.compare(Linear(tmp_path), _file(tmp_path, None, device="radio"))
    assert "a container refuses this request: context.device: must be one of tv" in str(error.value)


def test_a_model_of_whole_lists_needs_to_know_what_was_scored_together(tmp_path: Path) -> None:
    class Listwise(Linear):
        def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
            scores = super().score(inputs)
            return scores - scores.mean()

    def alone(**_values: float) -> float:
        return 0.0

    with pytest.raises(PublishError, match="give each row the request_id of what was scored"):
        expected.compare(Listwise(tmp_path), _file(tmp_path, alone))
    one_each = _file(tmp_path, alone, request_id=range(8))
    assert expected.compare(Listwise(tmp_path), one_each).requests == 8


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_swapped_columns_are_seen_whatever_the_size_of_the_scores(
    size: float, tmp_path: Path
) -> None:
    class Sized(Linear):
        def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
            return super().score(inputs) * np.float32(size)

    def team(**values: float) -> float:
        return size * _right(**values)

    assert expected.compare(Sized(tmp_path), _file(tmp_path, team)).rows == 8

    def swapped(**values: float) -> float:
        return team(**values | {"age": values["price"], "price": values["age"]})

    with pytest.raises(PublishError, match="they would agree if age and price were swapped"):
        expected.compare(Sized(tmp_path), _file(tmp_path, swapped))


def _lines_of(path: Path, directory: Path) -> list[str]:
    with pytest.raises(PublishError) as error:
        expected.compare(Linear(directory), path)
    return str(error.value).splitlines()


def test_rows_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    path = _file(tmp_path)
    frame = pd.read_parquet(path)
    pd.concat([frame, frame.iloc[:2]]).to_parquet(path)
    agreement = expected.compare(Linear(tmp_path), path)
    assert (agreement.rows, agreement.requests) == (10, 2)  # a request may have an item twice
    pd.concat([frame, frame.iloc[:1].assign(score=9.0)]).to_parquet(path)
    lines = _lines_of(path, tmp_path)
    assert "2 rows stand in the file more than once, with different scores" in lines


@pytest.mark.parametrize(
    ("team", "says"),
    [
        (lambda score: 100 * score, "each score of the file is 100 times the bundle's"),
        (lambda score: 1 / (1 + np.exp(-score)), "the bundle gives the logits of the file's"),
        (np.log1p, ""),
    ],
)
def test_scores_of_another_unit_are_named(
    team: Callable[[float], float], says: str, tmp_path: Path
) -> None:
    path = _file(tmp_path, lambda **values: float(team(_right(**values))))
    assert any(says and says in line for line in _lines_of(path, tmp_path)) == bool(says)


def test_an_agreement_says_how_much_of_it_is_of_defaults(tmp_path: Path) -> None:
    assert str(expected.compare(Linear(tmp_path), _file(tmp_path))).endswith(
        "8 rows in 2 requests; 2 of an unknown item"
    )
    path = _file(tmp_path)
    unknown = pd.read_parquet(path).query("item_id == 99").assign(user_id=[5, 6])
    score = _right(age=30.0, price=1.0, tv=1.0, hour=12.0, retrieval=9.9)
    unknown.assign(score=score).to_parquet(path)
    assert str(expected.compare(Linear(tmp_path), path)).endswith(
        "2 rows in 2 requests; all of an unknown user; all of an unknown item"
    )


def test_a_file_without_the_time_is_refused_where_the_model_reads_it(tmp_path: Path) -> None:
    path = _file(tmp_path)
    pd.read_parquet(path).drop(columns="timestamp").to_parquet(path)
    with pytest.raises(PublishError, match=r"timestamp is needed, as the model reads the time"):
        expected.compare(Linear(tmp_path), path)


def test_outputs_with_each_others_weight_are_named(tmp_path: Path) -> None:
    """An output of age and one of price, which the team weighs 2 and 1."""
    spec = replace(SPEC, outputs={"of_age": 1.0, "of_price": 2.0, "of_hour": 3.0})

    class Heads(Linear):
        def __init__(self, directory: Path) -> None:
            super().__init__(directory)
            self.spec = spec

        def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
            """In the order of their names."""
            age, price, _, hour, _ = inputs["x"].T
            return np.stack([np.sqrt(age), hour / 24, np.log1p(price)], axis=1)

        def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
            weights = np.array([spec.outputs[name] for name in spec.output_names], np.float32)
            scores: NDArray[np.float32] = self.outputs(inputs) @ weights
            return scores

    def team(age: float, price: float, hour: float, **_others: float) -> float:
        return float(2 * np.sqrt(age) + np.log1p(price) + 3 * hour / 24)

    with pytest.raises(PublishError) as error:
        expected.compare(Heads(tmp_path), _file(tmp_path, team))
    assert str(error.value).endswith(
        "they would agree if the outputs of_age and of_price had each other's weight"
    )
