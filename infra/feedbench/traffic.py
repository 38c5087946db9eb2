"""The requests that everything is measured with: the same for the same bundle."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from feedbench.stats import SEED
from feedops.local import gateway
from feedrank.bundle.layout import MANIFEST, SNAPSHOT, parse_manifest
from feedrank.domain import FloatArray, Query
from feedrank.features import expressions as context
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore, read_safetensors
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

UNKNOWN_SHARE = 0.05  # of the items: new ones, which no table has yet
MOMENT_S = 1_795_377_600.0  # 2026-11-22T20:00:00Z
HEADERS = (
    ("accept", "application/json"),
    ("content-type", "application/json"),
    ("host", "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"),
    ("user-agent", "feedrank-bench/1"),
)


def spec_of(bundle: Path) -> FeatureSpec:
    return parse_spec(parse_manifest((bundle / MANIFEST).read_bytes()).feature_spec)


def requests(
    bundle: Path, items: int, count: int, *, with_time: bool = False
) -> list[dict[str, Any]]:
    """Bodies of `/predict`. With a time in the context, their answers are repeatable."""
    random = np.random.default_rng((SEED, items))
    tables = read_safetensors(bundle / SNAPSHOT)
    users, known = tables["users.ids"], tables["items.ids"]
    examples = [context.parse(f.expression).example for f in spec_of(bundle).columns("context")]
    told = dict(each for each in examples if each)
    if with_time:
        told["timestamp"] = datetime.fromtimestamp(MOMENT_S, UTC).isoformat()
    made = []
    for _ in range(count):
        chosen = random.choice(known, items)
        new = random.random(items) < UNKNOWN_SHARE
        chosen[new] = int(known[-1]) + random.integers(1, 1_000, np.count_nonzero(new))
        made.append(
            {"user_id": int(random.choice(users)), "item_ids": chosen.tolist(), "context": told}
        )
    return made


def model_inputs(bundle: Path, bodies: list[dict[str, Any]]) -> list[dict[str, FloatArray]]:
    """The matrices that the model gets for these requests."""
    spec = spec_of(bundle)
    store, builder = SnapshotStore(bundle / SNAPSHOT, spec), MatrixBuilder(spec)
    queries = map(_query, bodies)
    return [builder.build(query, store.look_up(query)) for query in queries]


def _query(body: dict[str, Any]) -> Query:
    return Query(body["user_id"], body["item_ids"], body["context"], MOMENT_S)


def event(body: dict[str, Any]) -> dict[str, Any]:
    """The request as API Gateway's HTTP API hands it to the function."""
    request = gateway.HttpRequest(
        "POST", "/predict", headers=HEADERS, body=json.dumps(body).encode(), source_ip="203.0.113.7"
    )
    return gateway.to_event(request, gateway.new_request_id(), MOMENT_S)


def write_events(path: Path, bodies: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps([event(body) for body in bodies]))
    return path


def write_inputs(path: Path, inputs: list[dict[str, FloatArray]]) -> Path:
    """An .npz with `NUMBER/NAME` for each matrix."""
    arrays: dict[str, Any] = {
        f"{number}/{name}": matrix
        for number, matrices in enumerate(inputs)
        for name, matrix in matrices.items()
    }
    np.savez(path, **arrays)
    return path


def write_lines(path: Path, bodies: list[dict[str, Any]]) -> Path:
    """One body a line, for a load generator."""
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return path
