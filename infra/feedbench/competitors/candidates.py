"""What all competitors share: the request, from ids to model inputs, from scores to a ranking."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from feedrank.bundle.layout import MANIFEST, SNAPSHOT, parse_manifest
from feedrank.domain import FloatArray, Query
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec_reader import parse_spec

BUNDLE = Path(os.environ.get("MODEL_URI", ""))  # a competitor's; the benchmark itself names one
Id = Annotated[int, Field(ge=0, le=2**63 - 1)]
Score = Callable[[Mapping[str, FloatArray]], NDArray[Any]]  # of inputs; (items,)
Rank = Callable[[int, list[int], Mapping[str, str]], dict[str, Any]]  # the response's body


class PredictRequest(BaseModel):
    user_id: Id
    item_ids: list[Id] = Field(min_length=1, max_length=100)
    context: dict[str, str] = {}


class Prediction(BaseModel):
    item_id: int
    score: float
    rank: int


class PredictResponse(BaseModel):
    model_config = {"protected_namespaces": ()}

    user_id: int
    predictions: list[Prediction]
    model_version: str


class Candidates:
    def __init__(self, bundle: Path = BUNDLE) -> None:
        self.manifest = parse_manifest((bundle / MANIFEST).read_bytes())
        spec = parse_spec(self.manifest.feature_spec)
        self._store = SnapshotStore(bundle / SNAPSHOT, spec)
        self._matrix = MatrixBuilder(spec)

    def inputs(
        self, user_id: int, item_ids: list[int], context: Mapping[str, str], now_s: float = 0.0
    ) -> dict[str, FloatArray]:
        """The model's matrices, (items, features) each."""
        query = Query(user_id, item_ids, context, now_s or time.time())
        return self._matrix.build(query, self._store.look_up(query))

    def ranked_by(self, score: Score) -> Rank:
        version = self.manifest.model_version

        def rank(user_id: int, item_ids: list[int], context: Mapping[str, str]) -> dict[str, Any]:
            scores = score(self.inputs(user_id, item_ids, context))
            order, listed = np.argsort(-scores, kind="stable").tolist(), scores.tolist()
            predictions = [
                {"item_id": item_ids[at], "score": listed[at], "rank": rank}
                for rank, at in enumerate(order, 1)
            ]
            return {"user_id": user_id, "predictions": predictions, "model_version": version}

        return rank
