"""The feature snapshot: the tables as one safetensors file, which serving memory-maps."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from feedmodel.publish.tables import FeatureTables
from feedrank.features.vocabulary import NO_VOCABULARIES, Vocabulary


def write_snapshot(
    tables: FeatureTables,
    path: Path,
    vocabularies: Mapping[str, Vocabulary] = NO_VOCABULARIES,
    *,
    rounded: bool = True,
) -> None:
    """The same tables give the same bytes. `feedrank.features.snapshot` reads them. `vocabularies`
    are those that a request needs; `halves` are float16 where they are `rounded`."""
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
    for name, table in tables.items():
        halves = table.halves.astype(np.float16) if rounded else table.halves
        others = {"integers": table.integers, "times": table.times, "halves": halves}
        tensors |= {f"{name}.{block}": cells for block, cells in others.items() if cells.shape[1]}
    for key, vocabulary in vocabularies.items():
        tensors[f"vocabulary.{key}.keys"] = vocabulary.keys
        tensors[f"vocabulary.{key}.indices"] = vocabulary.indices
    save_file({name: np.ascontiguousarray(a) for name, a in tensors.items()}, path)
