"""What all rivals share: from ids to model inputs, from scores to a ranked list."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from feedrank.bundle.layout import MANIFEST, SNAPSHOT, parse_manifest
from feedrank.domain import FloatArray, Query
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec_reader import parse_spec

BUNDLE = Path(os.environ["MODEL_URI"])


class Candidates:
    def __init__(self, bundle: Path) -> None:
        self.manifest = parse_manifest((bundle / MANIFEST).read_bytes())
        spec = parse_spec(self.manifest.feature_spec)
        self._store = SnapshotStore(bundle / SNAPSHOT, spec)
        self._matrix = MatrixBuilder(spec)

    def inputs(
        self, user_id: int, item_ids: list[int], context: Mapping[str, str]
    ) -> dict[str, FloatArray]:
        query = Query(user_id, item_ids, context, time.time())
        return self._matrix.build(query, self._store.look_up(query))

    def answer(self, user_id: int, item_ids: list[int], scores: FloatArray) -> dict[str, Any]:
        order = np.argsort(-scores, kind="stable").tolist()
        listed = scores.tolist()
        return {
            "user_id": user_id,
            "predictions": [
                {"item_id": item_ids[at], "score": listed[at], "rank": rank}
                for rank, at in enumerate(order, 1)
            ],
            "model_version": self.manifest.model_version,
        }
