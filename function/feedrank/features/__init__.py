"""From a query to the rows that a model reads."""

from collections.abc import Callable
from typing import Protocol

from feedrank.domain import FeatureRows, Query
from feedrank.features.spec import FeatureSpec


class FeatureStore(Protocol):
    """Where a user's, an item's and a pair's features come from.

    An unknown id is a default and a mark; a store that can't answer raises. One that `waits` for
    something beyond this process is cut off at the request's deadline.
    """

    waits: bool

    async def fetch(self, query: Query) -> FeatureRows: ...


StoreFactory = Callable[[FeatureStore, FeatureSpec], FeatureStore]  # of the bundle's snapshot
