"""A context expression: the hour of the day in a time zone, such as `local_hour(Europe/Berlin)`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from feedrank.features.expressions import ContextFeature


def local_hour(zone: str) -> ContextFeature:
    tz = ZoneInfo(zone)

    def compute(_context: Mapping[str, Any], time_s: Any) -> Any:
        if np.ndim(time_s):  # a column, in training
            return np.array([datetime.fromtimestamp(t, tz).hour for t in time_s.tolist()])
        return datetime.fromtimestamp(time_s, tz).hour

    return ContextFeature(compute)


EXPRESSIONS = {"local_hour": local_hour}
