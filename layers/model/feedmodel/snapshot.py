"""The feature snapshot: user, item and pair tables as the arrays that serving memory-maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save

from feedmodel.errors import PublishError
from feedrank.domain import FloatArray, IntArray
from feedrank.features.spec import FeatureSpec

TableName = Literal["users", "items", "pairs"]
TABLES: Mapping[TableName, tuple[Literal["user", "item", "pair"], tuple[str, ...]]] = {
    "users": ("user", ("user_id",)),
    "items": ("item", ("item_id",)),
    "pairs": ("pair", ("user_id", "item_id")),
}
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, slots=True)
class Table:
    """`ids` is (rows, id columns) int64 in ascending order, `values` (rows, features) float32."""

    ids: IntArray
    values: FloatArray


def read_tables(
    spec: FeatureSpec, paths: Mapping[TableName, Path | None]
) -> dict[TableName, Table]:
    """The tables that the spec needs, checked, sorted, gaps filled with the spec's defaults.

    Raises PublishError that names the table and the column.
    """
    return {name: _table(spec, name, paths.get(name)) for name in TABLES}


def write_snapshot(tables: Mapping[TableName, Table], path: Path) -> None:
    """One safetensors file; the same tables give the same bytes."""
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


def find_table(folder: Path, name: TableName) -> Path | None:
    """`users.parquet` or `users.csv`, whichever is there."""
    found = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def _table(spec: FeatureSpec, name: TableName, path: Path | None) -> Table:
    source, keys = TABLES[name]
    features = spec.columns(source)
    if not features:
        return Table(np.empty((0, len(keys)), np.int64), np.empty((0, 0), np.float32))
    if path is None:
        raise PublishError(
            f"the feature spec reads {source} features, but there is no {name} table: "
            f"give one with --{name}, or log it to the run as features/{name}.parquet"
        )
    frame = _read(path)
    columns = [feature.name for feature in features]
    if missing := [column for column in (*keys, *columns) if column not in frame.columns]:
        raise PublishError(f"{path.name}: lacks the column {', '.join(missing)}")
    ids = _ids(frame, keys, path)
    order = np.lexsort(ids.T[::-1])
    return Table(ids[order], _values(frame, columns, spec.defaults(source), path)[order])


def _read(path: Path) -> pd.DataFrame:
    if path.suffix not in SUFFIXES:
        raise PublishError(f"{path.name}: a table is a .parquet or a .csv file")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise PublishError(f"{path.name}: can't be read: {error}") from error


def _ids(frame: pd.DataFrame, keys: Sequence[str], path: Path) -> IntArray:
    for key in keys:
        if not pd.api.types.is_integer_dtype(frame[key]) or frame[key].isna().any():
            raise PublishError(f"{path.name}: {key} must hold whole numbers, in every row")
        if len(frame) and frame[key].min() < 0:
            raise PublishError(f"{path.name}: {key} must not be negative")
    if frame.duplicated(list(keys)).any():
        raise PublishError(f"{path.name}: {' and '.join(keys)} must be unique")
    ids: IntArray = frame[list(keys)].to_numpy(dtype=np.int64)
    return ids


def _values(
    frame: pd.DataFrame, columns: Sequence[str], defaults: FloatArray, path: Path
) -> FloatArray:
    try:
        values: FloatArray = frame[list(columns)].to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise PublishError(f"{path.name}: features must be numbers: {error}") from error
    if np.isinf(values).any():
        raise PublishError(f"{path.name}: features must be finite")
    return np.where(np.isnan(values), defaults, values)
