"""Vectors that the snapshot keeps as float16 are served within what was allowed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from feedmodel.errors import PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.publish.expected import ServedBundle
from feedrank.bundle.layout import SNAPSHOT
from feedrank.domain import Query
from shop import Registry

WIDTH, ITEMS, USERS = 16, 300, 40
RANDOM = np.random.default_rng(5)
OF_ITEMS = RANDOM.normal(size=(ITEMS, WIDTH)).astype(np.float32)
OF_USERS = RANDOM.normal(size=(USERS, WIDTH)).astype(np.float32)
NOBODY = 10**9
SPEC: dict[str, Any] = {
    "inputs": [
        {"name": "x", "features": [
            {"name": "taste", "source": "user", "size": WIDTH, "store": "float16"},
            {"name": "price", "source": "item"},
            {"name": "embedding", "source": "item", "size": WIDTH, "store": "float16",
             "default": 0.5}]}]
}  # fmt: skip


class Dot(nn.Module):
    """How near an item's vector is to a user's, and its price."""

    def forward(self, x: Tensor) -> Tensor:
        near = (x[:, :WIDTH] * x[:, WIDTH + 1 :]).sum(1)
        return torch.sigmoid(near / 4 - x[:, WIDTH] / 10)


@pytest.fixture(scope="module")
def dot_uri(registry: Registry) -> str:
    return registry.log(Dot(), width=2 * WIDTH + 1)


@pytest.fixture
def vectors(options: PublishOptions, dot_uri: str, tmp_path: Path) -> PublishOptions:
    return _options(options, dot_uri, tmp_path, OF_USERS, OF_ITEMS)


def _options(
    options: PublishOptions, uri: str, directory: Path, of_users: Any, of_items: Any
) -> PublishOptions:
    spec, users, items = (directory / name for name in ("s.json", "u.parquet", "i.parquet"))
    spec.write_text(json.dumps(SPEC))
    pd.DataFrame({"user_id": range(USERS), "taste": list(of_users)}).to_parquet(users)
    frame = {"item_id": range(ITEMS), "price": np.arange(ITEMS) / 7, "embedding": list(of_items)}
    pd.DataFrame(frame).to_parquet(items)
    return replace(options, model_uri=uri, spec=spec, tables={"users": users, "items": items})


def _by_torch(user: int, items: list[int]) -> np.ndarray[Any, Any]:
    """From the vectors as they were."""
    taste = OF_USERS[user] if user < USERS else np.zeros(WIDTH, np.float32)
    rows = [
        np.concatenate([taste, [item / 7], OF_ITEMS[item]])
        if item < ITEMS
        else np.concatenate([taste, [0.0], np.full(WIDTH, 0.5)])
        for item in items
    ]
    scores: np.ndarray[Any, Any] = Dot()(torch.tensor(np.array(rows, np.float32))).numpy()
    return scores


def test_scores_are_as_near_to_those_of_the_vectors_as_it_was_allowed(
    vectors: PublishOptions,
) -> None:
    built = build_bundle(replace(vectors, tolerance=1e-3))
    served = ServedBundle(str(built.directory))
    apart = []
    for user in (*range(0, USERS, 7), NOBODY):
        items = [*RANDOM.integers(0, ITEMS, 30).tolist(), NOBODY]
        scores = served.score(served.inputs(Query(user, items, {}, 0.0)))
        apart.append(np.abs(scores - _by_torch(user, items)))
    assert np.concatenate(apart).max() <= 1e-3
    assert np.concatenate(apart[:-1]).max() > 1e-5  # they were rounded
    note = built.notes["float16"]
    assert note.startswith(f"{2 * (USERS + ITEMS) * WIDTH / 1e6:.1f} MB less; scores ")
    assert note.endswith("of the top 10 kept")


def test_the_snapshot_has_the_nearest_float16_numbers(vectors: PublishOptions) -> None:
    built = build_bundle(replace(vectors, tolerance=1e-3))
    tensors = load_file(built.directory / SNAPSHOT)
    assert tensors["items.halves"].dtype == tensors["users.halves"].dtype == np.float16
    np.testing.assert_array_equal(tensors["items.halves"], OF_ITEMS.astype(np.float16))
    np.testing.assert_array_equal(tensors["users.halves"], OF_USERS.astype(np.float16))


def test_vectors_that_move_scores_by_more_than_is_allowed_are_refused(
    vectors: PublishOptions,
) -> None:
    says = r"vectors as float16 move scores by up to \d\.\de-0[34]; 1e-05 is allowed"
    with pytest.raises(PublishError, match=says):
        build_bundle(vectors)


class Small(Dot):
    def forward(self, x: Tensor) -> Tensor:
        return 1e-9 * super().forward(x)


def test_small_scores_of_any_range_may_move_by_as_small_a_share(
    options: PublishOptions, registry: Registry, tmp_path: Path
) -> None:
    uri = registry.log(Small(), width=2 * WIDTH + 1)
    small = _options(options, uri, tmp_path, OF_USERS, OF_ITEMS)
    (tmp_path / "s.json").write_text(json.dumps(SPEC | {"range": None}))
    with pytest.raises(PublishError, match=r"move scores by up to \d\.\de-1[23]; \de-1[45] is all"):
        build_bundle(small)
    build_bundle(replace(small, tolerance=1e-2))


def test_float16_numbers_are_stored_as_they_are_without_more_tolerance(
    options: PublishOptions, dot_uri: str, tmp_path: Path
) -> None:
    halves = (OF_USERS.astype(np.float16), OF_ITEMS.astype(np.float16))
    built = build_bundle(_options(options, dot_uri, tmp_path, *halves))
    assert built.notes["float16"].endswith(
        "scores 0.0e+00 apart at most, 100.0% of the top 10 kept"
    )


def test_a_number_beyond_float16_is_refused(
    options: PublishOptions, dot_uri: str, tmp_path: Path
) -> None:
    large = OF_ITEMS.copy()
    large[7, 3] = 65_505
    says = r"i\.parquet: column embedding holds 65505; float16 ends at 65,504"
    with pytest.raises(PublishError, match=says):
        build_bundle(_options(options, dot_uri, tmp_path, OF_USERS, large))
