"""The feature snapshot: user, item and pair tables as the arrays that serving memory-maps."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save

from feedmodel.errors import PublishError
from feedmodel.publish.columns import check_default, float32_column
from feedrank.domain import MAX_ID, FloatArray, IntArray
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
    """`ids` is (rows, id columns) int64 in ascending order, `values` (rows, features) float32.
    `missing` counts, by column, the cells that were empty and took the spec's default."""

    ids: IntArray
    values: FloatArray
    missing: Mapping[str, int] = field(default_factory=dict)


def read_tables(
    spec: FeatureSpec, paths: Mapping[TableName, Path | None]
) -> dict[TableName, Table]:
    """The tables that the spec needs, checked, sorted, gaps filled with the spec's defaults.

    Raises PublishError that names the table and the column.
    """
    for input_ in spec.inputs:
        for feature in input_.features:
            check_default(feature.default, f"feature spec: the default of {feature.name}")
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
    columns = [feature.name for feature in features]
    frame = _read(path, {*keys, *columns})
    if missing := [column for column in (*keys, *columns) if column not in frame.columns]:
        raise PublishError(f"{path.name}: lacks the column {', '.join(missing)}")
    ids = _ids(frame, keys, path)
    values, empty = _values(frame, columns, spec.defaults(source), path)
    order = np.lexsort(ids.T[::-1])
    if (order[1:] > order[:-1]).all():  # no copy where the table is sorted already
        return Table(ids, values, empty)
    return Table(ids[order], values[order], empty)


def _read(path: Path, wanted: Collection[str]) -> pd.DataFrame:
    """Of a wide table only the columns that are wanted, those that it has."""
    if path.suffix not in SUFFIXES:
        raise PublishError(f"{path.name}: a table is a .parquet or a .csv file")
    if not path.is_file():
        raise PublishError(f"{path}: there is no such file")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, usecols=lambda column: column in wanted)
        stored = pq.read_schema(path).names
        return pd.read_parquet(path, columns=[column for column in stored if column in wanted])
    except (OSError, ValueError) as error:
        raise PublishError(f"{path.name}: can't be read: {error}") from error


def _ids(frame: pd.DataFrame, keys: Sequence[str], path: Path) -> IntArray:
    for key in keys:
        if not pd.api.types.is_integer_dtype(frame[key]) or frame[key].isna().any():
            raise PublishError(f"{path.name}: {key} must hold whole numbers, in every row")
        if len(frame) and frame[key].min() < 0:
            raise PublishError(f"{path.name}: {key} must not be negative")
        if len(frame) and (largest := int(frame[key].max())) > MAX_ID:
            raise PublishError(f"{path.name}: {key} holds {largest}, the largest id is {MAX_ID}")
    if frame.duplicated(list(keys)).any():
        raise PublishError(f"{path.name}: {' and '.join(keys)} must be unique")
    ids: IntArray = frame[list(keys)].to_numpy(dtype=np.int64)
    return ids


def _values(
    frame: pd.DataFrame, columns: Sequence[str], defaults: FloatArray, path: Path
) -> tuple[FloatArray, dict[str, int]]:
    values = np.empty((len(frame), len(columns)), dtype=np.float32)
    empty: dict[str, int] = {}
    for at, column in enumerate(columns):
        cells = float32_column(frame[column], f"{path.name}: column {column}")
        gaps = np.isnan(cells)
        if count := int(np.count_nonzero(gaps)):
            empty[column] = count
            cells[gaps] = defaults[at]
        values[:, at] = cells
    return values, empty
