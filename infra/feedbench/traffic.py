"""The requests that everything is measured with: the same for the same bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from feedbench.stats import SEED
from feedops.features.load import bundle_spec
from feedops.local import gateway
from feedrank.bundle.layout import SNAPSHOT
from feedrank.features import expressions
from feedrank.features.snapshot import read_safetensors

SIZES = (5, 50, 100)  # items a request
UNKNOWN_SHARE = 0.05  # of the items: new ones, which no table has yet
MOMENT_S = 1_795_377_600.0  # 2026-11-22T20:00:00Z


def requests(bundle: Path, items: int, count: int) -> list[dict[str, Any]]:
    """Bodies of `/predict`."""
    random = np.random.default_rng((SEED, items))
    tables = read_safetensors(bundle / SNAPSHOT)
    users, known = tables["users.ids"], tables["items.ids"]
    features = bundle_spec(bundle).columns("context")
    examples = [expressions.parse(feature.expression).example for feature in features]
    context = dict(example for example in examples if example)
    bodies = []
    for _ in range(count):
        ids = random.choice(known, items)
        new = random.random(items) < UNKNOWN_SHARE
        ids[new] = int(known[-1]) + random.integers(1, 1_000, np.count_nonzero(new))
        user_id = int(random.choice(users))
        bodies.append({"user_id": user_id, "item_ids": ids.tolist(), "context": context})
    return bodies


def event(body: dict[str, Any]) -> dict[str, Any]:
    """The request as API Gateway's HTTP API hands it to the function."""
    body_bytes = json.dumps(body).encode()
    return dict(json.loads(gateway.example_event("POST", "/predict", body_bytes)))


def write_events(path: Path, bodies: list[dict[str, Any]]) -> str:
    """The path, for a probe's options."""
    path.write_text(json.dumps([event(body) for body in bodies]))
    return str(path)


def write_lines(path: Path, bodies: list[dict[str, Any]]) -> Path:
    """One body a line, for a load generator."""
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return path
