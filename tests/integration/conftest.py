"""A shop's model in MLflow, ready to be published."""

import json
from pathlib import Path

import pandas as pd
import pytest

from feedmodel.publish.build import PublishOptions
from shop import SHOP_SPEC, Registry, Shop


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")


@pytest.fixture(scope="module")
def shop_uri(registry: Registry) -> str:
    return registry.log(Shop())


@pytest.fixture
def options(registry: Registry, shop_uri: str, tmp_path: Path) -> PublishOptions:
    """How the shop's model is published: tables from a warehouse, a spec written by hand."""
    spec, users, items = tmp_path / "spec.json", tmp_path / "users.csv", tmp_path / "items.parquet"
    spec.write_text(json.dumps(SHOP_SPEC))
    pd.DataFrame({"user_id": [9, 4], "age": [51.0, None], "name": ["Ann", "Bob"]}).to_csv(users)
    pd.DataFrame({"item_id": [30, 10, 20], "price": [3.0, 1.0, 2.0]}).to_parquet(items)
    return PublishOptions(
        shop_uri,
        registry.uri,
        spec=spec,
        tables={"users": users, "items": items},
        bundles=tmp_path / "bundles",
    )
