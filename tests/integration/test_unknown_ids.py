"""Ids that no table has, sent to a small trained demo through the real serving code."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from starlette.testclient import TestClient

import fakes
from feedmodel.demo.options import NetworkName, TrainOptions
from feedmodel.demo.train import train
from feedmodel.publish.build import PublishOptions, build_bundle
from feedrank.model.load import load_model

SMALL = TrainOptions(users=200, items=400, interactions=30_000, epochs=4, batch_size=256)
SLATES = 300
UNKNOWN = 1_000_000  # and above


@pytest.fixture(scope="module", params=["deep_mlp", "two_tower"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    network: NetworkName = request.param
    directory = tmp_path_factory.mktemp(network)
    uri = f"sqlite:///{directory}/mlflow.db"
    trained = train(replace(SMALL, network=network, tracking_uri=uri), Console(quiet=True))
    model = f"models:/{trained.registered_name}/{trained.version}"
    built = build_bundle(PublishOptions(model, uri, bundles=directory / "bundles"))
    return client_of(built.directory)


def client_of(bundle: Path) -> TestClient:
    return TestClient(fakes.app(load_model(str(bundle), "", fakes.settings())))


def ranked(client: TestClient, user: int, items: list[int]) -> list[dict[str, Any]]:
    response = client.post("/predict", json={"user_id": user, "item_ids": items})
    assert response.status_code == 200
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def test_no_unknown_item_outranks_the_median_known_one(client: TestClient) -> None:
    random = np.random.default_rng(11)
    for _ in range(SLATES):
        user = int(random.integers(1, 2 * SMALL.users))  # half of them unknown
        known = random.choice(SMALL.items, int(random.integers(1, 50)), replace=False) + 1
        unknown = UNKNOWN + random.choice(1_000, int(random.integers(1, 10)), replace=False)
        items = random.permutation(np.concatenate([known, unknown])).tolist()
        order = [prediction["item_id"] for prediction in ranked(client, user, items)]
        assert sorted(order) == sorted(items)
        places = [place for place, item in enumerate(order) if item < UNKNOWN]
        best_unknown = min(place for place, item in enumerate(order) if item >= UNKNOWN)
        assert best_unknown > np.median(places)


def test_an_unknown_item_is_scored_about_as_the_mean_of_the_known_ones(
    client: TestClient,
) -> None:
    """The score has no effect in this spec; one with unknown_items "default" ranks by it."""
    items = list(range(1, 100))
    ratios = []
    for user in range(1, 51):
        scores = {
            each["item_id"]: each["score"] for each in ranked(client, user, [*items, UNKNOWN])
        }
        unknown = scores.pop(UNKNOWN)
        ratios.append(unknown / np.mean(list(scores.values())))
    assert 0.8 < np.median(ratios) < 1.3
