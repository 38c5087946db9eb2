"""Rankers that LightGBM and XGBoost trained and onnxmltools converted, as MLflow has them: what is
served is what the libraries themselves score (`tests/trees/make.py`)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest

from feedmodel.errors import PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.training.runs import tracked_run
from feedops.workspace import EVENTS
from zoo_bundles import responses_of

TREES = Path(__file__).parents[1] / "trees"
LIBRARIES = ("lightgbm", "xgboost")
FEATURES: list[dict[str, Any]] = [
    {"name": "age", "source": "user", "default": None},
    {"name": "ctr", "source": "user", "default": None},
    {"name": "price", "source": "item", "default": None},
    {"name": "popularity", "source": "item", "default": None},
    {"name": "hour", "source": "context", "expression": "hour"},
    {"name": "retrieval", "source": "candidate"},
]
SCORES = pd.read_csv(TREES / "scores.csv")


def options_of(
    library: str, uri: str, directory: Path, features: list[dict[str, Any]] = FEATURES
) -> PublishOptions:
    """How the ranker is published with what the library scored."""
    spec, expect = directory / "spec.json", directory / "expected.csv"
    spec.write_text(json.dumps({"inputs": [{"name": "x", "features": features}], "range": None}))
    expected = SCORES.drop(columns=[*LIBRARIES]).assign(score=SCORES[library])
    expected.to_csv(expect, index=False)
    with tracked_run(uri, "trees", "a run"):
        model = mlflow.onnx.log_model(
            onnx.load(TREES / f"{library}.onnx"), name=library, pip_requirements=["onnx"]
        )
    return PublishOptions(
        model.model_uri,
        uri,
        spec=spec,
        tables={"users": TREES / "users.csv", "items": TREES / "items.csv"},
        bundles=directory / "bundles",
        expect=expect,
    )


def _event(impression: pd.DataFrame) -> bytes:
    moment = pd.Timestamp(impression["timestamp"].iloc[0], unit="s", tz="UTC").isoformat()
    body = {
        "user_id": int(impression["user_id"].iloc[0]),
        "item_ids": impression["item_id"].tolist(),
        "context": {"timestamp": moment},
        "features": {"retrieval": impression["retrieval"].tolist()},
    }
    event = json.loads((EVENTS / "predict.json").read_text())
    return json.dumps(event | {"body": json.dumps(body), "isBase64Encoded": False}).encode()


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_is_served_is_what_the_library_scores(
    library: str, tracking_uri: str, tmp_path: Path
) -> None:
    built = build_bundle(options_of(library, tracking_uri, tmp_path))
    assert built.agreement
    assert built.agreement.rows == len(SCORES)
    requests = [impression for _, impression in SCORES.groupby("user_id")]
    events = [_event(impression) for impression in requests]
    responses = asyncio.run(responses_of(built.directory, events, tmp_path))
    for impression, response in zip(requests, responses, strict=True):
        native = dict(zip(impression["item_id"].tolist(), impression[library], strict=True))
        served = {each["item_id"]: each["score"] for each in response["predictions"]}
        assert served.keys() == native.keys()
        expected = [native[item] for item in served]
        np.testing.assert_allclose([*served.values()], expected, rtol=1e-5, atol=0)


def test_columns_in_another_order_are_refused(tracking_uri: str, tmp_path: Path) -> None:
    """Trees take any number for any other: nothing but the library's own scores tells."""
    swapped = [FEATURES[n] for n in (0, 1, 3, 2, 4, 5)]
    options = options_of("lightgbm", tracking_uri, tmp_path, swapped)
    with pytest.raises(PublishError, match="would agree if popularity and price were swapped"):
        build_bundle(options)
