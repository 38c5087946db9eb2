"""The feature snapshot: the tables as one safetensors file, which serving memory-maps."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from feedmodel.publish.tables import FeatureTables


def write_snapshot(tables: FeatureTables, path: Path) -> None:
    """The same tables give the same bytes. `feedrank.features.snapshot` reads them."""
    pairs = tables["pairs"]
    pair_users, starts = np.unique(pairs.ids[:, 0], return_index=True)
    tensors: dict[str, NDArray[np.generic]] = {
        "users.ids": tables["users"].ids[:, 0],
        "users.values": tables["users"].values,
        "items.ids": tables["items"].ids[:, 0],
        "items.values": tables["items"].values,
        "pairs.users": pair_users,
        "pairs.starts": np.append(starts, len(pairs.ids)).astype(np.int64),
        "pairs.items": pairs.ids[:, 1],
        "pairs.values": pairs.values,
    }
    path.write_bytes(save({name: np.ascontiguousarray(a) for name, a in tensors.items()}))
