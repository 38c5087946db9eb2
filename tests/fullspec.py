"""A bundle of everything that a spec can say: text ids, lists, vocabularies, times, candidates,
several outputs and scores of any range."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

import fakes
from feedrank.domain import FloatArray
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import ContextKeys
from feedrank.features.expressions import DAY_S
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import text_key, text_keys, vocabulary_of
from feedrank.model.load import Model

NAN = float("nan")
NOW_S = 1_800_000_000.0
RICH: dict[str, Any] = {
    "ids": "text",
    "inputs": [
        {"name": "who", "type": "int64", "per": "request", "shape": [4], "features": [
            {"name": "country", "source": "user", "vocabulary": "country"},
            {"name": "recent", "source": "context", "expression": "list(recent)", "size": 3,
             "vocabulary": "items"}]},
        {"name": "film", "type": "int64", "shape": [-1, 3], "features": [
            {"name": "device", "source": "context", "expression": "text(device)",
             "vocabulary": "device"},
            {"name": "genres", "source": "item", "size": 2, "vocabulary": "genre"}]},
        {"name": "dense", "features": [
            {"name": "embedding", "source": "item", "size": 2, "default": [-0.5, 0.5]},
            {"name": "price", "source": "item", "default": None},
            {"name": "age_days", "source": "item", "expression": "since(created_at)",
             "default": -1.0},
            {"name": "seen", "source": "pair", "default": 0.0},
            {"name": "last_seen", "source": "pair", "expression": "since(seen_at)", "default": 99},
            {"name": "retrieval_score", "source": "candidate", "default": 0.25},
            {"name": "clip", "source": "candidate", "size": 2, "keep": "last"}]},
    ],
    "vocabularies": {"country": 3, "genre": ["a", "b"], "items": 4, "device": 2},
    "outputs": {"click": 1.0, "like": 2.0},
    "range": None,
}  # fmt: skip
ITEMS = vocabulary_of(["x", "y", "z", "w"])
DEVICES = vocabulary_of(["tv", "phone"])


def store(directory: Path, spec: FeatureSpec, **changed: NDArray[Any]) -> SnapshotStore:
    """One user, `ann`; items `i` and `j`; ann has seen i a day ago."""
    items = {text_key("i"): 0, text_key("j"): 1}
    order = [items[key] for key in sorted(items)]
    tensors = {
        "users.ids": text_keys(["ann"]),
        "users.values": np.empty((1, 0), np.float32),
        "users.integers": np.array([[2]], np.int32),
        "items.ids": np.array(sorted(items)),
        "items.values": np.array([[0.1, 0.2, 5.0], [0.3, 0.4, NAN]], np.float32)[order],
        "items.integers": np.array([[0, 1], [1, 2]], np.int32)[order],
        "items.times": np.array([[NOW_S - 3 * DAY_S], [NAN]])[order],
        "pairs.users": text_keys(["ann"]),
        "pairs.starts": np.array([0, 1]),
        "pairs.items": text_keys(["i"]),
        "pairs.values": np.array([[7.0]], np.float32),
        "pairs.times": np.array([[NOW_S - DAY_S]]),
        "vocabulary.items.keys": ITEMS.keys,
        "vocabulary.items.indices": ITEMS.indices,
        "vocabulary.device.keys": DEVICES.keys,
        "vocabulary.device.indices": DEVICES.indices,
    } | changed
    path = directory / "features.safetensors"
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))
    return SnapshotStore(path, spec)


class SumEngine:
    """An item's `click` is the sum of what `dense` has of it without NaN, its `like` that of
    `film`; the score is click + 2 like."""

    stopper = fakes.Stopper

    def __init__(self) -> None:
        self.inferences = 0

    def score(self, inputs: Mapping[str, FloatArray], stopper: Any = None) -> FloatArray:
        return self.explain(inputs, stopper)[0]

    def explain(
        self, inputs: Mapping[str, FloatArray], *_stopper: Any
    ) -> tuple[FloatArray, FloatArray]:
        self.inferences += 1
        outputs = np.stack(
            [np.nansum(inputs["dense"], 1), inputs["film"].sum(1).astype(np.float32)], 1
        )
        return outputs @ np.float32([1, 2]), outputs


def model(directory: Path, engine: Any = None, **changed: Any) -> Model:
    """Serves `RICH` with its keys replaced, from a snapshot in `directory`."""
    spec = parse_spec(RICH | changed)
    snapshot = store(directory, spec)
    return replace(
        fakes.model(engine or SumEngine()),
        spec=spec,
        features=snapshot,
        matrix=MatrixBuilder(spec, snapshot.vocabularies),
        context=ContextKeys(spec, snapshot.vocabularies),
        candidates=CandidateFeatures(spec, snapshot.vocabularies),
    )
