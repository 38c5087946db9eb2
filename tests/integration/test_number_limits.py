"""Numbers that a request brings to an embedding: scored as torch does, or refused as torch does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import clients
import fakes
import zoo
from clients import problem
from feedmodel.errors import PublishError
from feedrank.bundle.layout import MANIFEST
from feedrank.domain import FeatureRows, Query
from feedrank.features import FeatureStore
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.model.load import Model, load_model
from zoo_bundles import publish

TABS, SLOTS, BUCKETS, SHELVES = 4, 6, 3, 5


class Indexed(nn.Module):
    """A tab of the context, a slot and a bucket that the caller knows of each item, its shelf."""

    def __init__(self) -> None:
        super().__init__()
        self.tabs, self.slots = nn.Embedding(TABS, 2), nn.Embedding(SLOTS, 2)
        self.buckets, self.shelves = nn.Embedding(BUCKETS, 2), nn.Embedding(SHELVES, 2)

    def forward(self, tab: Tensor, of_item: Tensor, dense: Tensor) -> Tensor:
        bucket = self.buckets(dense[:, 0].long())
        item = self.slots(of_item[:, 0]) + self.shelves(of_item[:, 1]) + bucket
        return torch.sigmoid((self.tabs(tab[:, 0]) * item).sum(1) + 0.01 * dense[:, 1])


INDEXED = zoo.Known(
    Indexed,
    {
        "inputs": [
            {"name": "tab", "type": "int64", "per": "request", "features": [
                {"name": "tab", "source": "context", "expression": "number(tab)"}]},
            {"name": "of_item", "type": "int64", "features": [
                {"name": "slot", "source": "candidate"}, {"name": "shelf", "source": "item"}]},
            {"name": "dense", "features": [
                {"name": "bucket", "source": "candidate"},
                {"name": "price", "source": "candidate", "default": 2.0}]},
        ],
    },
)  # fmt: skip
ITEMS = pd.DataFrame({"item_id": range(SHELVES), "shelf": range(SHELVES)})


@pytest.fixture(scope="module")
def bundle(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("indexed")
    return publish(INDEXED, {"items": ITEMS}, tracking_uri, directory).directory


@pytest.fixture(scope="module")
def served(bundle: Path) -> Model:
    return load_model(str(bundle), "", fakes.settings())


def sent(tab: int = 1, slot: int = 2, bucket: float = 1.0, shelf: int = 3) -> dict[str, Any]:
    return {
        "user_id": 1,
        "item_ids": [shelf, 0],
        "context": {"tab": str(tab)},
        "features": {"slot": [slot, 0], "bucket": [bucket, 0]},
    }


def by_torch(tab: int = 1, slot: int = 2, bucket: float = 1.0, shelf: int = 3) -> Any:
    """The score of the first item; None where torch has none."""
    of_item, dense = torch.tensor([[slot, shelf]]), torch.tensor([[bucket, 2.0]])
    try:
        return INDEXED.module()(torch.tensor([[tab]]), of_item, dense).item()
    except IndexError:
        return None


@pytest.mark.parametrize(
    ("name", "numbers", "says"),
    [
        ("tab", [*range(-TABS - 1, TABS + 2), 2**52], "context.tab: must be from 0 to 3"),
        ("slot", [*range(-SLOTS - 1, SLOTS + 2), 2**62], "features.slot: must be from 0 to 5"),
        ("bucket", [-3.0, -1.0, -0.9, 0.0, 2.9, 3.0, 1e30], "features.bucket: must be from -0.99"),
    ],
)
def test_a_number_is_scored_as_torch_scores_it_or_refused(
    served: Model, name: str, numbers: list[Any], says: str
) -> None:
    client, refused = clients.client(served), 0
    for number in numbers:
        expected = by_torch(**{name: number})
        response = client.post("/predict", json=sent(**{name: number}))
        if expected is None:
            refused += 1
            assert problem(response, 422)["detail"].startswith(says)
        else:
            scores = {p["item_id"]: p["score"] for p in response.json()["predictions"]}
            assert abs(scores[3] - expected) <= 1e-5
    assert 0 < refused < len(numbers)


def test_an_index_beyond_the_embedding_of_an_older_bundle_is_an_error_without_details(
    bundle: Path, served: Model
) -> None:
    """One that was published before limits were."""
    spec = json.loads((bundle / MANIFEST).read_bytes())["feature_spec"]
    assert [sorted(input_.pop("limits", {})) for input_ in spec["inputs"]] == [
        ["tab"], ["shelf", "slot"], ["bucket"]
    ]  # fmt: skip
    older = parse_spec(spec)
    model = replace(served, spec=older, matrix=MatrixBuilder(older))
    response = clients.client(model).post("/predict", json=sent(slot=SLOTS))
    assert problem(response, 500)["detail"] == "Internal server error"


def test_a_row_of_another_store_that_the_model_does_not_take_fails(bundle: Path) -> None:
    class Negative:
        waits = False

        def __init__(self, snapshot: FeatureStore) -> None:
            self._snapshot = snapshot

        async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
            rows = await self._snapshot.fetch(query, deadline_s)
            shelves = -1 - rows.others["item", "integers"]
            return rows._replace(others={("item", "integers"): shelves})

    def stores_of(snapshot: FeatureStore, _spec: FeatureSpec) -> tuple[FeatureStore, ...]:
        return snapshot, Negative(snapshot)

    client = clients.client(load_model(str(bundle), "", fakes.settings(), stores_of))
    assert problem(client.post("/predict", json=sent()), 500)["detail"] == "Internal server error"


def test_a_vocabulary_beyond_the_embedding_is_refused(tracking_uri: str, tmp_path: Path) -> None:
    spec = json.loads(json.dumps(INDEXED.spec))
    spec["inputs"][1]["features"][0]["vocabulary"] = "slots"
    spec["vocabularies"] = {"slots": [f"slot {n}" for n in range(SLOTS)]}
    known = replace(INDEXED, spec=spec)
    with pytest.raises(PublishError, match=r"the vocabulary slots has 6 texts.* 6 of slot"):
        publish(known, {"items": ITEMS}, tracking_uri, tmp_path)
