"""The nouns of a request, below everything else.

Named tuples: as immutable as frozen dataclasses, and made in half the time, each request.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

NO_OTHERS: Mapping[tuple[str, str], NDArray[Any]] = {}
NO_CANDIDATES: Mapping[str, NDArray[Any]] = {}
NO_CONTEXT: Mapping[str, str | None] = {}
MAX_ITEMS = 100
MAX_ID = 2**63 - 1


class Query(NamedTuple):
    """Who asks, and for what. `time_s` is Unix time in seconds, `item_ids` is (items,)."""

    user_id: int
    item_ids: IntArray
    context: Mapping[str, str]
    time_s: float
    candidates: Mapping[str, NDArray[Any]] = NO_CANDIDATES  # (items,) or (items, size), by name


class FeatureRows(NamedTuple):
    """What a feature store knows about a query, unknowns already replaced by the spec's defaults.

    Columns are the store's own, in the order of `FeatureSpec.columns(source)`.
    """

    user: FloatArray  # (user columns,)
    items: FloatArray  # (items, item columns)
    pairs: FloatArray  # (items, pair columns)
    unknown_user: bool
    unknown_items: BoolArray  # (items,)
    degraded: tuple[str, ...] = ()
    others: Mapping[tuple[str, str], NDArray[Any]] = NO_OTHERS  # by source and block


class Call(NamedTuple):
    """One request as the clock sees it. Times are `time.perf_counter()` seconds.

    `is_alone` where no other is served meanwhile, as on Lambda. `correlation_id` is the
    gateway's own id of the request, `trace_id` the caller's.
    """

    request_id: str
    started_s: float
    deadline_s: float
    is_alone: bool
    correlation_id: str | None = None
    trace_id: str | None = None
    limit_s: float = 0.0  # Lambda's own deadline; for nothing but a wait for the first model


class Ranking(NamedTuple):
    """A finished answer: scores in the caller's order, `order` the positions from the best on.
    Where the spec drops unknown items, `order` is without them.

    Plain lists: both JSON lines and the metrics read them, and each reads them item by item.
    """

    request_id: str
    timestamp: str  # UTC, ISO 8601
    model_version: str
    model_digest: str  # its first 12 digits
    scores: list[float]  # each the shortest decimal of its float32
    order: list[int]
    degraded: tuple[str, ...]
    unknown_users: int
    unknown_items: int
    features_ms: float
    scoring_ms: float
    latency_ms: float
    unknown: dict[str, Any] | None = None  # as the answer has it
    warnings: tuple[str, ...] = ()  # what the context has that the model doesn't read
    snapshot_age_s: float | None = None
    spilled: int = 0  # sinks that refused its record
    context: Mapping[str, str | None] = NO_CONTEXT  # what the record may hold of the request's
    context_dropped: int = 0  # entries of the request's that it doesn't hold as they were sent
    stages: tuple[str, ...] = ()  # the names of those that ran after scoring
