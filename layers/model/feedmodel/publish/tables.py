"""Feature tables: users, items and pairs from Parquet or CSV, checked, as sorted arrays."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from feedmodel.errors import PublishError
from feedmodel.publish.float32 import check_default, float32_column
from feedrank.domain import MAX_ID, FloatArray, IntArray
from feedrank.features.spec import FeatureSpec

TableName = Literal["users", "items", "pairs"]
# By name: the source that reads the table, and the table's id columns.
TABLES: Mapping[TableName, tuple[Literal["user", "item", "pair"], tuple[str, ...]]] = {
    "users": ("user", ("user_id",)),
    "items": ("item", ("item_id",)),
    "pairs": ("pair", ("user_id", "item_id")),
}
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """`ids` is (rows, id columns) int64 in ascending order, `values` (rows, features) float32 in
    the order of `FeatureSpec.columns(source)`. `missing` counts, by column, the empty cells, which
    hold the spec's default."""

    ids: IntArray
    values: FloatArray
    missing: Mapping[str, int] = field(default_factory=dict)


FeatureTables = Mapping[TableName, FeatureTable]


def read_tables(
    spec: FeatureSpec, paths: Mapping[TableName, Path | None]
) -> dict[TableName, FeatureTable]:
    """The tables that the spec needs; one that it doesn't need is empty.

    Raises PublishError that names the table and the column.
    """
    for input_ in spec.inputs:
        for feature in input_.features:
            check_default(feature.default, f"feature spec: the default of {feature.name}")
    return {name: _read_table(spec, name, paths.get(name)) for name in TABLES}


def find_table(directory: Path, name: TableName) -> Path | None:
    """`users.parquet` or `users.csv`, whichever exists."""
    paths = (directory / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _read_table(spec: FeatureSpec, name: TableName, path: Path | None) -> FeatureTable:
    source, keys = TABLES[name]
    features = spec.columns(source)
    if not features:
        return FeatureTable(np.empty((0, len(keys)), np.int64), np.empty((0, 0), np.float32))
    if path is None:
        raise PublishError(
            f"the feature spec reads {source} features, but there is no {name} table: "
            f"give one with --{name}, or log it to the run as features/{name}.parquet"
        )
    columns = [feature.name for feature in features]
    frame = _read_frame(path, {*keys, *columns})
    if absent := [column for column in (*keys, *columns) if column not in frame.columns]:
        raise PublishError(f"{path.name}: lacks the column {', '.join(absent)}")
    ids = _ids(frame, keys, path)
    values, missing = _values(frame, columns, spec.defaults(source), path)
    order = np.lexsort(ids.T[::-1])
    if (order[1:] > order[:-1]).all():  # no copy where the table is sorted already
        return FeatureTable(ids, values, missing)
    return FeatureTable(ids[order], values[order], missing)


def _read_frame(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """Those of the columns that the file has; a wide table is not read whole."""
    if path.suffix not in SUFFIXES:
        raise PublishError(f"{path.name}: a table is a .parquet or a .csv file")
    if not path.is_file():
        raise PublishError(f"{path}: there is no such file")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, usecols=lambda column: column in columns)
        stored = pq.read_schema(path).names
        return pd.read_parquet(path, columns=[column for column in stored if column in columns])
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
    """The cells with their gaps filled, and the number of gaps by column."""
    values = np.empty((len(frame), len(columns)), dtype=np.float32)
    missing: dict[str, int] = {}
    for at, column in enumerate(columns):
        cells = float32_column(frame[column], f"{path.name}: column {column}")
        gaps = np.isnan(cells)
        if count := int(np.count_nonzero(gaps)):
            missing[column] = count
            cells[gaps] = defaults[at]
        values[:, at] = cells
    return values, missing
