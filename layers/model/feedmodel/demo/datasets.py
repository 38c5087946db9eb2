"""What a run was trained and evaluated on, for MLflow: a description and a digest, no data."""

import hashlib
import json
from typing import Any

import mlflow
import numpy as np
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.data.meta_dataset import MetaDataset
from mlflow.types import ColSpec, DataType, Schema

from feedmodel.demo.feed import Feed
from feedmodel.demo.options import TrainOptions
from feedmodel.demo.run_log import STARTED_BY
from feedmodel.demo.windows import Windows

TRAINING, TEST = "training", "test"  # contexts
GENERATED_BY = ("users", "items", "interactions", "seed")  # options
SCHEMA = Schema(
    [
        *(ColSpec(DataType.long, name) for name in ("user_id", "item_id", "time_s", "dwell_ms")),
        ColSpec(DataType.string, "device"),
        ColSpec(DataType.boolean, "clicked"),
    ]
)


class WindowData(MetaDataset):
    """The interactions of one window. The same digest means the same interactions."""

    def __init__(self, feed: Feed, window: slice, context: str, options: TrainOptions) -> None:
        arguments = {name: str(getattr(options, name)) for name in GENERATED_BY}
        source = CodeDatasetSource(STARTED_BY | arguments)
        super().__init__(source, f"synthetic_feed_{context}", digest(feed, window), SCHEMA)
        clicked = feed.clicked[window]
        self._profile = {"num_rows": len(clicked), "clicks": int(clicked.sum())}

    @property
    def profile(self) -> dict[str, int]:
        return self._profile

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"profile": json.dumps(self.profile)}


def log_data(feed: Feed, windows: Windows, options: TrainOptions) -> Dataset:
    """Log the training and the test window. Returns the latter."""
    test = WindowData(feed, windows.test, TEST, options)
    mlflow.log_input(WindowData(feed, windows.train, TRAINING, options), context=TRAINING)
    mlflow.log_input(test, context=TEST)
    return test


def digest(feed: Feed, window: slice) -> str:
    """Of what was shown to whom, when, and with what outcome; 16 hexadecimal digits."""
    hash_ = hashlib.sha256("\n".join(feed.device[window].tolist()).encode())
    for column in (feed.user_id, feed.item_id, feed.time_s, feed.clicked, feed.dwell_ms):
        hash_.update(np.ascontiguousarray(column[window]).tobytes())
    return hash_.hexdigest()[:16]
