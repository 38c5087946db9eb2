"""What a run was trained and judged on, for MLflow: a description and a digest, no data."""

import hashlib
import json
from typing import Any

import mlflow
import numpy as np
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.data.meta_dataset import MetaDataset
from mlflow.types import ColSpec, DataType, Schema

from feedmodel.demo.data import Feed
from feedmodel.demo.options import TrainOptions
from feedmodel.demo.windows import Windows

TRAINING, TEST = "training", "test"  # contexts
DRAWN_BY = ("users", "items", "interactions", "seed")
SCHEMA = Schema(
    [
        *(ColSpec(DataType.long, name) for name in ("user_id", "item_id", "time_s", "dwell_ms")),
        ColSpec(DataType.string, "device"),
        ColSpec(DataType.boolean, "clicked"),
    ]
)


class WindowData(MetaDataset):
    """The interactions of one window. Two of the same digest hold the same ones."""

    def __init__(self, feed: Feed, window: slice, context: str, options: TrainOptions) -> None:
        drawn_by = {name: str(getattr(options, name)) for name in DRAWN_BY}
        source = CodeDatasetSource({"mlflow.source.name": "feedrank train"} | drawn_by)
        super().__init__(source, f"synthetic_feed_{context}", digest(feed, window), SCHEMA)
        clicked = feed.clicked[window]
        self._profile = {"num_rows": len(clicked), "clicks": int(clicked.sum())}

    @property
    def profile(self) -> dict[str, int]:
        return self._profile

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"profile": json.dumps(self.profile)}


def log_data(feed: Feed, windows: Windows, options: TrainOptions) -> Dataset:
    """The training and the test window. Returns the latter."""
    test = WindowData(feed, windows.test, TEST, options)
    mlflow.log_input(WindowData(feed, windows.train, TRAINING, options), context=TRAINING)
    mlflow.log_input(test, context=TEST)
    return test


def digest(feed: Feed, window: slice) -> str:
    """Of what was shown to whom, when, and what came of it; 16 hexadecimal digits."""
    found = hashlib.sha256("\n".join(feed.device[window].tolist()).encode())
    for column in (feed.user_id, feed.item_id, feed.time_s, feed.clicked, feed.dwell_ms):
        found.update(np.ascontiguousarray(column[window]).tobytes())
    return found.hexdigest()[:16]
