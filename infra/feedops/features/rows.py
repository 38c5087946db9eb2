"""Stores of packed rows, as an operator writes and reads them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from feedops.errors import OperationError
from feedrank.features.stored_rows import StoredRow
from feedrank.features.stores import VALKEY

WRITE_UNIT_BYTES = 1_024


class WrittenRow(NamedTuple):
    """A row as it is written: its key, its bytes, and of a user the packed pairs."""

    key: str
    row: bytes
    pairs: bytes = b""

    @property
    def units(self) -> int:
        """Write units: a KB each, and the names count too."""
        size = len(self.key) + len(self.row) + len(self.pairs) + 64
        return -(-size // WRITE_UNIT_BYTES)


class RowStore(Protocol):
    """Safe for threads. Its methods raise OperationError."""

    def write(self, row: WrittenRow, time_s: float, expires_s: float | None) -> bool:
        """False where the store has a row of the same time or a newer one, which stays. Times are
        Unix seconds."""

    def read(self, keys: Sequence[str], *, expired: bool = False) -> dict[str, StoredRow]:
        """The rows by key, as they are now; `expired` ones too, if they are still there."""


def store_of(uri: str) -> RowStore:
    """Raises OperationError."""
    from feedops.features.table import SCHEME, FeatureTable

    if uri.startswith(SCHEME):
        return FeatureTable(uri)
    if uri.startswith(VALKEY):
        from feedops.features.valkey import ValkeyStore

        return ValkeyStore(uri)
    raise OperationError(f"{uri}: must be dynamodb://table or valkey://host:port")
