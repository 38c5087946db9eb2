"""A bundle's snapshot as tables, to fill a store from it and to compare a store with it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedmodel.publish.tables import FeatureTable, TableName
from feedrank.bundle.layout import SNAPSHOT
from feedrank.features.packed_rows import BLOCKS
from feedrank.features.snapshot import read_safetensors


def snapshot_tables(bundle: Path) -> dict[TableName, FeatureTable]:
    """Raises BundleError."""
    tensors = read_safetensors(bundle / SNAPSHOT)
    counts = np.diff(tensors["pairs.starts"])
    pairs = np.column_stack([np.repeat(tensors["pairs.users"], counts), tensors["pairs.items"]])
    ids = {
        "users": tensors["users.ids"][:, np.newaxis],
        "items": tensors["items.ids"][:, np.newaxis],
    }
    return {
        "users": _table(tensors, "users", ids["users"]),
        "items": _table(tensors, "items", ids["items"]),
        "pairs": _table(tensors, "pairs", pairs),
    }


def _table(
    tensors: dict[str, NDArray[Any]], name: TableName, ids: NDArray[np.int64]
) -> FeatureTable:
    blocks: dict[str, Any] = {
        block: tensors[f"{name}.{block}"] for block in BLOCKS if f"{name}.{block}" in tensors
    }
    return FeatureTable(ids=ids, **blocks)
