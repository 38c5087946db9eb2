"""From a query to the rows that a model reads."""

from collections.abc import Callable
from typing import Protocol

from feedrank.domain import FeatureRows, Query
from feedrank.features.spec import FeatureSpec


class FeatureStore(Protocol):
    """Where a user's, an item's and a pair's features come from.

    `waits` tells whether it waits for something outside this process; then a request has an event
    loop, and is ended at its deadline.

    A store may also have `connect(self) -> None`, as a DecisionSink has. It is called after a
    SnapStart restore, without an event loop: connections that were open before the snapshot are
    dead, and only look alive. What it raises is logged, and requests go on.
    """

    @property
    def waits(self) -> bool: ...

    async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
        """An unknown id has the spec's defaults and is marked; whatever stands in for the store is
        named in `degraded`. `deadline_s` is the request's, in `time.perf_counter()` seconds. An
        exception fails the request."""


StoreFactory = Callable[[FeatureStore, FeatureSpec], FeatureStore]  # of the store before it
StoreChain = Callable[[FeatureStore, FeatureSpec], tuple[FeatureStore, ...]]  # of the snapshot
