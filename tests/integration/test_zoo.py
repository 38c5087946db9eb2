"""Ranking models as they are known: from MLflow to the answer of the local Lambda, as torch scores
what a team computes by itself."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import zoo
from feedops.local.emulator import Function
from feedops.local.pool import EnvironmentPool
from feedops.workspace import FUNCTION
from zoo import ZOO, Known, Shown
from zoo_bundles import publish

REQUESTS = 40
TOLERANCE = 1e-5
NOON_S = 1_790_000_000


def _requests(known: Known) -> list[Shown]:
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
        requests.append(Shown(user, items, {}, time_s, sent if reads and number % 2 else {}))
    return requests


def _event(shown: Shown, *, explain: bool) -> bytes:
    moment = pd.Timestamp(shown.time_s, unit="s", tz="UTC").isoformat()
    body = {"user_id": shown.user, "item_ids": shown.items, "context": {"timestamp": moment}}
    if shown.candidates:
        body["features"] = shown.candidates
    if explain:
        body["explain"] = True
    event = json.loads((FUNCTION.parent / "events/predict.json").read_text())
    return json.dumps(event | {"body": json.dumps(body), "isBase64Encoded": False}).encode()


async def _responses(bundle: Path, events: list[bytes], folder: Path) -> list[dict[str, Any]]:
    function = Function(FUNCTION, {"MODEL_URI": str(bundle)}, timeout_s=60)
    async with EnvironmentPool(
        function, 1, logs=folder / "logs", scratch=folder / "run", longest_wait_s=60.0
    ) as pool:
        responses = [json.loads(await pool.invoke(event)) for event in events]
    assert {response["statusCode"] for response in responses} == {200}
    return [json.loads(response["body"]) for response in responses]


@pytest.mark.parametrize("name", ZOO)
def test_a_known_model_is_served_as_torch_scores_it(
    name: str, tracking_uri: str, tmp_path: Path
) -> None:
    known = ZOO[name]
    frames = zoo.tables(text_ids=known.text_ids)
    built = publish(known, frames, tracking_uri, tmp_path)
    requests = _requests(known)
    explain = "outputs" in known.spec
    events = [_event(shown, explain=explain) for shown in requests]
    responses = asyncio.run(_responses(built.folder, events, tmp_path))
    for shown, response in zip(requests, responses, strict=True):
        expected = zoo.truth(known, frames, shown)
        order = np.argsort(-expected["score"], kind="stable")
        assert response["user_id"] == shown.user
        assert len(response["predictions"]) == len(shown.items)
        served = [prediction["score"] for prediction in response["predictions"]]
        _assert_near(served, expected["score"][order])
        if explain:
            for output in known.spec["outputs"]:
                values = [p["outputs"][output] for p in response["predictions"]]
                _assert_near(sorted(values), np.sort(expected[output]))


def _assert_near(served: Any, expected: np.ndarray[Any, Any]) -> None:
    """Scores of equal items may change places, so they are compared in their order."""
    apart = np.abs(np.asarray(served) - expected)
    assert (apart <= TOLERANCE * np.maximum(1.0, np.abs(expected))).all(), apart.max()
