"""Item vectors ahead of time: the served half scores as the whole model does, or there is none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from feedmodel.errors import PublishError
from feedmodel.publish.ahead import Served, compute_ahead
from feedmodel.publish.export import declared_inputs, export_module, quiet, save_program
from feedmodel.publish.inputs import in_model_terms
from feedmodel.publish.tables import read_tables
from feedrank.features.spec_reader import parse_spec
from feedrank.model.engines.torch import TorchEngine
from zoo import Known

ITEM_IDS = {"name": "item", "type": "int64", "features": [zoo.ITEM]}
USER = {"name": "user_features", "per": "request", "features": [zoo.AGE]}
ITEM = {"name": "item_features", "features": [zoo.PRICE, zoo.EMBEDDING]}


class Two(nn.Module):
    """Both kinds of an item's inputs; `item_features` is read together with the user's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.mlp = nn.Embedding(zoo.ITEMS + 1, 4), nn.Linear(13, 6)

    def forward(self, user_features: Tensor, item: Tensor, item_features: Tensor) -> Tensor:
        of_item = self.mlp(torch.cat([self.items(item).squeeze(1), item_features], dim=1)).relu_()
        users = user_features.expand(item.shape[0], -1)
        return torch.sigmoid((of_item * users / 50).sum(1) + of_item.mT.mean(0))


class AmongItems(nn.Module):
    """An item's vector depends on the other items."""

    def forward(self, user_features: Tensor, item_features: Tensor) -> Tensor:
        rest = item_features - item_features.mean(0)
        return torch.sigmoid((rest * user_features).sum(1) / 500)


class Together(nn.Module):
    """Nothing is computed of an item alone."""

    def forward(self, user_features: Tensor, item_features: Tensor) -> Tensor:
        return torch.sigmoid((user_features * item_features).sum(1) / 500)


class ById(nn.Module):
    def forward(self, user_features: Tensor, item: Tensor) -> Tensor:
        return torch.sigmoid((user_features * item).sum(1) / 5_000)


def whole_model(make: Any, inputs: Sequence[dict[str, Any]], directory: Path) -> Served:
    vocabularies = {"items": list(range(zoo.ITEMS))}
    texts = {"vocabularies": vocabularies} if ITEM_IDS in inputs else {}
    known = Known(make, {"inputs": list(inputs), **texts})
    paths = {name: directory / f"{name}.parquet" for name in ("users", "items", "pairs")}
    for name, frame in zoo.tables().items():
        frame.to_parquet(paths[name])
    spec = parse_spec(known.spec)
    with quiet():
        program = export_module(known.module(), spec)
    spec = in_model_terms(spec, declared_inputs(program))
    return Served(spec, program, read_tables(spec, paths))  # type: ignore[arg-type]


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_two_inputs_become_one_vector_of_each_item(store: str, tmp_path: Path) -> None:
    item = ITEM | {"features": [zoo.PRICE, zoo.EMBEDDING | {"store": store}]}
    whole = whole_model(Two, [USER, ITEM_IDS, item], tmp_path)
    served = compute_ahead(whole, ["Item_Features", "item"])  # in any case and order
    assert [(i.name, i.width) for i in served.spec.inputs] == [("user_features", 1), ("item", 7)]
    assert served.tables["items"].values.shape == (zoo.ITEMS, 7)
    assert served.tables["items"].integers.shape == (zoo.ITEMS, 0)
    assert served.tables["items"].halves.shape == (zoo.ITEMS, 0)
    assert not served.spec.vocabularies

    save_program(served.program, tmp_path / "model.pt2")
    users = torch.tensor([[41.0]])
    frame = zoo.tables()["items"]
    prices = frame["price"].fillna(9.5).to_numpy(np.float32)
    embeddings = np.stack(frame["embedding"]).astype(store).astype(np.float32)
    item_rows = np.column_stack([prices, embeddings])
    ids = torch.arange(1, zoo.ITEMS + 1)[:, None]
    torch.manual_seed(zoo.SEED)
    expected = Two().eval()(users, ids, torch.tensor(item_rows)).detach().numpy()
    scores = TorchEngine(tmp_path / "model.pt2", 1).score(
        {"user_features": users.numpy(), "item": served.tables["items"].values}
    )
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_an_unknown_item_has_the_vector_of_the_defaults(tmp_path: Path) -> None:
    whole = whole_model(Two, [USER, ITEM_IDS, ITEM], tmp_path)
    served = compute_ahead(whole, ["item", "item_features"])
    torch.manual_seed(zoo.SEED)
    model = Two().eval()
    defaults = torch.tensor([[9.5, *[0.0] * zoo.WIDTH]])
    expected = model.mlp(torch.cat([model.items(torch.tensor([0])), defaults], dim=1)).relu()
    vector = served.spec.defaults("item")
    np.testing.assert_allclose(vector[1:], expected[0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(vector[0], vector[1:].mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "inputs", "names", "says"),
    [
        (AmongItems, [USER, ITEM], ["item_features"], "depends on the other items of the request"),
        (Together, [USER, ITEM], ["item_features"], "computes nothing from it alone"),
        (ById, [USER, ITEM_IDS], ["item"], "together with other inputs, as the whole numbers"),
        (Together, [USER, ITEM], ["user_features"], "age isn't of the item alone"),
        (Together, [USER, ITEM], ["items"], "no such input; it has user_features, item_features"),
    ],
)
def test_what_is_not_of_the_item_alone_is_refused(
    make: Any, inputs: Any, names: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(PublishError, match=says):
        compute_ahead(whole_model(make, inputs, tmp_path), names)


def test_a_vector_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    whole = whole_model(zoo.TwoTower, [USER | {"features": [zoo.AGE, zoo.HOUR]}, ITEM], tmp_path)
    items = whole.tables["items"]
    values = items.values.copy()
    values[3] = np.nan
    broken = replace(whole, tables={**whole.tables, "items": replace(items, values=values)})
    with pytest.raises(PublishError, match="an item's vector isn't finite"):
        compute_ahead(broken, ["item_features"])
