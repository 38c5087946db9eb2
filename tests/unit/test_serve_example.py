"""The request that `feedrank serve` shows is one that the bundle ranks."""

import json
from pathlib import Path
from typing import Any

import pytest

import clients
import fullspec
from feedops.local.serve import example_body
from feedrank.bundle.layout import GOLDEN
from feedrank.model.load import Model


@pytest.fixture
def full(tmp_path: Path) -> Model:
    return fullspec.model(tmp_path)


def test_where_ids_are_texts_it_is_one_of_the_bundles_own(full: Model, tmp_path: Path) -> None:
    cases: list[dict[str, Any]] = [
        {"user_id": "ann", "item_ids": ["i"], "context": {}, "time_s": 0.0, "scores": [0.5]},
        {"user_id": "ann", "item_ids": ["i", "j", "it's"], "context": {"device": "tv"},
         "features": {"retrieval_score": [0.5, 1, None]}, "time_s": 0.0, "scores": [1, 2, 3]},
    ]  # fmt: skip
    (tmp_path / GOLDEN).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / GOLDEN).write_text(json.dumps({"cases": cases}))
    manifest: Any = type("M", (), {"feature_spec": full.spec.to_json()})
    body = example_body(tmp_path, manifest)
    assert json.loads(body).keys() == {"user_id", "item_ids", "context", "features"}
    response = clients.client(full).post("/predict", content=body)
    assert response.status_code == 200, response.text
    assert len(response.json()["predictions"]) == 3


def test_where_ids_are_numbers_it_is_that_of_the_samples(demo_bundle: Path) -> None:
    manifest: Any = type("M", (), {"feature_spec": {}})
    assert json.loads(example_body(demo_bundle, manifest))["user_id"] == 123
