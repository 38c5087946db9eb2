"""The nouns of a request, below everything else.

Named tuples: as immutable as frozen dataclasses, and created in half the time, once a request.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

NO_OTHERS: Mapping[tuple[str, str], NDArray[Any]] = {}
NO_CANDIDATES: Mapping[str, Any] = {}
NO_CONTEXT: Mapping[str, str | None] = {}
MAX_ITEMS = 1_000  # that the setting MAX_ITEMS may allow
DEFAULT_MAX_ITEMS = 100
MAX_BATCH_ITEMS = 2_048  # of the requests before the last one of a batch
MAX_ID = 2**63 - 1
MAX_ID_LENGTH = 128  # characters of an id that is text


class Query(NamedTuple):
    """Who wants which items ranked. Ids are as they were sent: texts where the bundle says so.
    `time_s` is what the features take for now, in Unix seconds: the context's `timestamp`, or when
    the request came. `candidates` are the values of each candidate feature, as sent until the model
    is known, then (items,) or (items, size). With `explain` the model's outputs are returned."""

    user_id: int | str
    item_ids: Sequence[int] | Sequence[str]
    context: Mapping[str, str]
    time_s: float
    candidates: Mapping[str, Any] = NO_CANDIDATES
    explain: bool = False


class RowSources(NamedTuple):
    """Where the rows of a store come from, and how old they are: a letter each, as in the decision
    record, the user's first. `refused` rows were wrong. `oldest_s` is the age of the oldest row of
    those that came from the store or the cache. `all_lost`: defaults stand for the user and all
    items, and the store is to blame."""

    sources: str
    ages: str
    refused: int = 0
    oldest_s: float | None = None
    all_lost: bool = False


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
    sources: RowSources | None = None  # of a store that is not the snapshot alone


class Call(NamedTuple):
    """One request as the clock sees it: `time_s` is when it came, in Unix seconds, the others are
    `time.perf_counter()` seconds.

    `is_alone` where no other is served meanwhile, as on Lambda. `correlation_id` is the
    gateway's own id of the request, `trace_id` the caller's.
    """

    request_id: str
    time_s: float
    started_s: float
    deadline_s: float
    is_alone: bool
    correlation_id: str | None = None
    trace_id: str | None = None
    limit_s: float = 0.0  # Lambda's own deadline; for nothing but a wait for the first model


class Ranking(NamedTuple):
    """A finished request, for the response, the decision record, the log line and the metrics.

    Scores stand in the caller's order, as plain lists, since both JSON lines read them item by
    item. `order` has the positions from the best on, without those that the spec or a stage drops.
    """

    query: Query
    call: Call
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
    unknown: dict[str, Any] | None = None  # as the response has it
    warnings: tuple[str, ...] = ()  # what the context has that the model doesn't read
    snapshot_age_s: float | None = None
    spilled: int = 0  # sinks that refused its record
    context: Mapping[str, str | None] = NO_CONTEXT  # what the record may hold of the request's
    context_dropped: int = 0  # entries of the request's that it doesn't hold as they were sent
    stages: tuple[str, ...] = ()  # the names of those that ran after scoring
    features: str | None = None  # what the record may hold of the request's, as JSON
    outputs: Mapping[str, list[float | None]] | None = None  # by name, (items,); with `explain`
    row_sources: RowSources | None = None
