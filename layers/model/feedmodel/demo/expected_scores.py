"""What the demo's own evaluation gives for requests that a bundle of the same run will get.

Publishing compares the bundle with it, so none of the code that publishes or serves is used here:
the tables are joined as data frames, and the calendar is pandas'. Some users and items are unknown,
some requests name no device.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from feedmodel.demo.feed import DEVICES, Feed
from feedmodel.demo.networks import Network
from feedmodel.publish.tables import TableName
from feedmodel.training.fit import Examples, predict
from feedrank.features.spec import FeatureSpec

SLATES = 200  # the last ones of the feed
EACH = 10  # every tenth user, item and device is unknown
UNKNOWN = 10**9  # added to an id
SATURDAY = 5  # Monday is 0


def expected_scores(
    network: Network, spec: FeatureSpec, tables: Mapping[TableName, pd.DataFrame], feed: Feed
) -> pd.DataFrame:
    """A row an item: ids, timestamp, device, request_id, score."""
    requests = _requests(feed)
    columns = _columns(requests, tables)
    defaults = {f.name: f.default for input_ in spec.inputs for f in input_.features}
    inputs = {
        input_.name: np.column_stack(
            [columns[f.name].fillna(defaults[f.name]) for f in input_.features]
        ).astype(np.float32)
        for input_ in spec.inputs
    }
    score = predict(network, Examples(inputs, np.zeros(len(requests), np.bool_)))
    return requests.assign(score=score.astype(np.float64))


def _requests(feed: Feed) -> pd.DataFrame:
    rows = feed.slate > feed.slate[-1] - SLATES
    slate = feed.slate[rows]
    device = feed.device[rows].astype(object)
    return pd.DataFrame(
        {
            "user_id": feed.user_id[rows] + np.where(slate % EACH == 0, UNKNOWN, 0),
            "item_id": feed.item_id[rows] + np.where(np.arange(len(slate)) % EACH == 0, UNKNOWN, 0),
            "timestamp": pd.to_datetime(feed.time_s[rows], unit="s", utc=True),
            "device": np.where(slate % EACH == 1, None, device),
            "request_id": slate,
        }
    )


def _columns(requests: pd.DataFrame, tables: Mapping[TableName, pd.DataFrame]) -> pd.DataFrame:
    """All features by name, NaN where nothing is known."""
    joined = (
        requests.merge(tables["users"], "left", "user_id")
        .merge(tables["items"], "left", "item_id")
        .merge(tables["pairs"], "left", ["user_id", "item_id"])
    )
    moment, device = joined["timestamp"].dt, joined["device"]
    calendar = {
        "hour_of_day": moment.hour,
        "day_of_week": moment.day_of_week,
        "is_weekend": moment.day_of_week >= SATURDAY,
    }
    is_device = {f"device_{each}": (device == each).where(device.notna()) for each in DEVICES}
    return joined.assign(**calendar, **is_device).astype(
        dict.fromkeys((*calendar, *is_device), np.float64)
    )
