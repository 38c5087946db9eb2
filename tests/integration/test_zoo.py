"""Ranking models as they are known: from MLflow to the answer of the local Lambda, as torch scores
what a team computes by itself."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import zoo
from feedmodel.errors import PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedops.workspace import FUNCTION
from feedrank.bundle.layout import TORCH_MODEL
from feedrank.errors import BundleError
from feedrank.model.load import load_model
from feedrank.settings import Settings
from zoo import ZOO, Impression, Known
from zoo_bundles import publish, responses_of

REQUESTS = 40
EXPECTED = 6  # of them that publishing is given
TOLERANCE = 1e-5
NOON_S = 1_790_000_000


def _expected(known: Known, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What the team's own evaluation gave."""
    requests = enumerate(_requests(known)[:EXPECTED])
    return pd.DataFrame(
        {
            "request_id": number,
            "user_id": impression.user,
            "item_id": item,
            "timestamp": impression.time_s,
            "retrieval_score": (impression.candidates or {"retrieval_score": [np.nan] * 100})[
                "retrieval_score"
            ][at],
            "score": float(score),
        }
        for number, impression in requests
        for at, (item, score) in enumerate(
            zip(impression.items, zoo.truth(known, frames, impression)["score"], strict=True)
        )
    )


def _requests(known: Known) -> list[Impression]:
    """Known and unknown users and items, one to a hundred, with and without what a caller knows."""
    random = np.random.default_rng(11)
    user_ids = [*range(zoo.USERS), 10_000]
    requests = []
    for number in range(REQUESTS):
        size = int(random.integers(1, 100)) if number else 1
        items = random.integers(0, zoo.ITEMS + 3, size).tolist()
        user: Any = user_ids[number % len(user_ids)]
        if known.text_ids:
            user, items = f"user-{user}", [zoo.film(item) for item in items]
        reads = any("candidate" in f["source"] for i in known.spec["inputs"] for f in i["features"])
        sent = {"retrieval_score": random.random(size).round(4).tolist()}
        time_s = NOON_S + number * 7_211
        requests.append(Impression(user, items, {}, time_s, sent if reads and number % 2 else {}))
    return requests


def _event(impression: Impression, *, explain: bool) -> bytes:
    moment = pd.Timestamp(impression.time_s, unit="s", tz="UTC").isoformat()
    body = {
        "user_id": impression.user,
        "item_ids": impression.items,
        "context": {"timestamp": moment},
    }
    if impression.candidates:
        body["features"] = impression.candidates
    if explain:
        body["explain"] = True
    event = json.loads((FUNCTION.parent / "events/predict.json").read_text())
    return json.dumps(event | {"body": json.dumps(body), "isBase64Encoded": False}).encode()


@pytest.mark.parametrize("name", ZOO)
def test_a_known_model_is_served_as_torch_scores_it(
    name: str, tracking_uri: str, tmp_path: Path
) -> None:
    known = ZOO[name]
    frames = zoo.tables(text_ids=known.text_ids)
    team = _expected(known, frames) if known.make is zoo.LambdaMart else None
    built = publish(known, frames, tracking_uri, tmp_path, team)
    requests = _requests(known)
    explain = "outputs" in known.spec
    events = [_event(impression, explain=explain) for impression in requests]
    responses = asyncio.run(responses_of(built.directory, events, tmp_path))
    for impression, response in zip(requests, responses, strict=True):
        expected = zoo.truth(known, frames, impression)
        order = np.argsort(-expected["score"], kind="stable")
        assert response["user_id"] == impression.user
        assert len(response["predictions"]) == len(impression.items)
        served = [prediction["score"] for prediction in response["predictions"]]
        _assert_near(served, expected["score"][order])
        if explain:
            for output in zoo.output_weights(known.spec):
                values = [p["outputs"][output] for p in response["predictions"]]
                _assert_near(sorted(values), np.sort(expected[output]))


def test_trees_are_published_by_the_teams_scores_alone(tracking_uri: str, tmp_path: Path) -> None:
    known, frames = ZOO["LambdaMART"], zoo.tables()
    built = publish(known, frames, tracking_uri, tmp_path, _expected(known, frames))
    assert built.parity is None
    assert built.agreement
    assert TORCH_MODEL not in built.manifest.files
    variables = {"MODEL_URI": str(built.directory), "MODEL_ENGINE": "torch"}
    cache = {"MODEL_CACHE_DIR": str(tmp_path / "cache")}
    with pytest.raises(BundleError, match="MODEL_ENGINE must be onnx"):
        load_model(str(built.directory), "", Settings.from_environment(variables | cache))

    options = PublishOptions(
        f"models:/{built.manifest.version}",
        tracking_uri,
        spec=tmp_path / "spec.json",
        tables={name: tmp_path / f"{name}.parquet" for name in frames},  # type: ignore[misc]
        bundles=tmp_path / "bundles",
        expect=tmp_path / "expected.parquet",
    )
    with pytest.raises(PublishError, match="give the scores of your own evaluation with --expect"):
        build_bundle(replace(options, expect=None))
    with pytest.raises(PublishError, match="--activation is for a PyTorch model"):
        build_bundle(replace(options, activation="sigmoid"))
    assert options.expect
    wrong = pd.read_parquet(options.expect)
    wrong.assign(score=wrong["score"] + 0.1).to_parquet(options.expect)
    with pytest.raises(PublishError, match="scores differ by more than"):
        build_bundle(options)


def _assert_near(served: Any, expected: np.ndarray[Any, Any]) -> None:
    """Scores of equal items may change places, so they are compared in their order."""
    apart = np.abs(np.asarray(served) - expected)
    assert (apart <= TOLERANCE * np.maximum(1.0, np.abs(expected))).all(), apart.max()
