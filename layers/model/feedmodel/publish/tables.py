"""Feature tables: users, items and pairs from Parquet or CSV, checked, as sorted arrays."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.cells import (
    Cells,
    TextNumbers,
    float32_cells,
    integer_cells,
    smallest,
    time_cells,
    vocabulary_cells,
)
from feedmodel.publish.files import SUFFIXES, TableFile
from feedmodel.publish.float32 import check_default, check_float16
from feedrank.domain import MAX_ID, MAX_ID_LENGTH, FloatArray, IntArray
from feedrank.features.spec import Block, Feature, FeatureSpec, Source
from feedrank.features.vocabulary import text_keys

TableName = Literal["users", "items", "pairs"]
# By name: the source that reads the table, and the table's id columns.
TABLES: Mapping[TableName, tuple[Literal["user", "item", "pair"], tuple[str, ...]]] = {
    "users": ("user", ("user_id",)),
    "items": ("item", ("item_id",)),
    "pairs": ("pair", ("user_id", "item_id")),
}
TYPES: Mapping[Block, Any] = {
    "values": np.float32,
    "integers": np.int64,
    "times": np.float64,
    "halves": np.float32,
}
ROWS_NAMED = 1_000  # at most: golden requests need the texts of some ids
TEXT_KINDS = {"string", "categorical", "empty"}


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """`ids` is (rows, id columns) int64 in ascending order; `values` float32, `integers` int32 or
    int64 and `times` float64 (Unix seconds) are (rows, columns) in the order of
    `FeatureSpec.block`, as are `halves`, float32 that the snapshot rounds to float16. `missing`
    counts, by column, the empty cells, which hold the spec's default, `unknown` the cells that no
    vocabulary has, which are 0. `names` are the texts of some ids, where ids are text."""

    ids: IntArray
    values: FloatArray
    missing: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    integers: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    names: Mapping[int, str] = field(default_factory=dict)
    halves: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))


FeatureTables = Mapping[TableName, FeatureTable]


def read_tables(
    spec: FeatureSpec, paths: Mapping[TableName, Path | None]
) -> dict[TableName, FeatureTable]:
    """The tables that the spec needs; one that it doesn't need is empty.

    Raises PublishError that names the table and the column.
    """
    for input_ in spec.inputs:
        for feature in input_.features:
            if input_.type == "float32":
                for default in feature.defaults or (feature.default,):
                    check_default(default, f"feature spec: the default of {feature.name}")
    vocabularies = {
        name: TextNumbers(texts)
        for name, texts in spec.vocabularies.items()
        if isinstance(texts, tuple)
    }
    return {name: _read_table(spec, name, paths.get(name), vocabularies) for name in TABLES}


def find_table(directory: Path, name: TableName) -> Path | None:
    """`users.parquet` or `users.csv`, whichever exists."""
    paths = (directory / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _read_table(
    spec: FeatureSpec, name: TableName, path: Path | None, vocabularies: Mapping[str, TextNumbers]
) -> FeatureTable:
    source, keys = TABLES[name]
    features = spec.columns(source)
    if not features:
        return FeatureTable(np.empty((0, len(keys)), np.int64), np.empty((0, 0), np.float32))
    if path is None:
        raise PublishError(
            f"the feature spec reads {source} features, but there is no {name} table: "
            f"give one with --{name}, or log it to the run as features/{name}.parquet"
        )
    columns = {*keys, *(feature.column for feature in features)}
    file = TableFile(path, columns, _texts(spec, source, keys))
    ids = _read_ids(spec, file, keys)
    order = _sort(ids)
    if (ids[1:] == ids[:-1]).all(axis=1).any():
        raise PublishError(f"{path.name}: {' and '.join(keys)} must be unique")
    table = _table_of(spec, source, file, ids, order=order, vocabularies=vocabularies)
    return replace(table, names=_names(file, keys, ids, order)) if spec.ids == "text" else table


def _read_ids(spec: FeatureSpec, file: TableFile, keys: Sequence[str]) -> IntArray:
    """(rows, id columns), in the order of the file; each column contiguous."""
    read = _text_ids if spec.ids == "text" else _ids
    return np.array([read(file.read([key])[key], f"{file.name}: {key}") for key in keys]).T


def _sort(ids: IntArray) -> IntArray | None:
    """Sorts the rows in place, and gives where each was; None where they were sorted."""
    order = _order(ids)
    if order is not None:
        for column in ids.T:
            column[:] = column[order]
    return order


def _order(ids: IntArray) -> IntArray | None:
    if ids.shape[1] == 1:
        key = ids[:, 0]
    elif len(ids) and (int(ids[:, 0].max()) + 1) * (span := int(ids[:, 1].max()) + 1) <= MAX_ID:
        key = ids[:, 0] * span + ids[:, 1]  # one number a row sorts five times as fast as two
    else:
        order = np.lexsort(ids.T[::-1])
        return None if (order[1:] > order[:-1]).all() else order
    return None if (key[1:] >= key[:-1]).all() else np.argsort(key)


def _names(
    file: TableFile, keys: Sequence[str], ids: IntArray, order: IntArray | None
) -> dict[int, str]:
    """Of rows throughout the table."""
    at = np.linspace(0, len(ids) - 1, min(len(ids), ROWS_NAMED)).astype(np.int64)
    rows = at if order is None else order[at]
    texts = file.read(keys)[[*keys]].iloc[rows].astype(str).to_numpy(dtype=object)
    return dict(zip(ids[at].ravel().tolist(), texts.ravel().tolist(), strict=True))


def _table_of(
    spec: FeatureSpec,
    source: Source,
    file: TableFile,
    ids: IntArray,
    *,
    order: IntArray | None,
    vocabularies: Mapping[str, TextNumbers],
) -> FeatureTable:
    """Column by column into its block, in the order of the ids."""
    missing: dict[str, int] = {}
    unknown: dict[str, int] = {}
    blocks: dict[Block, NDArray[Any]] = {}
    for block in get_args(Block):
        features = spec.starts(source, block)
        blocks[block] = np.empty((len(ids), sum(f.width for f, _ in features)), TYPES[block])
        for feature, start in features:
            series = file.read([feature.column])[feature.column]
            place = f"{file.name}: column {feature.column}"
            cells = _cells(block, series, feature, place, vocabularies)
            rows = cells.rows if order is None else cells.rows.take(order, axis=0)
            blocks[block][:, start : start + feature.width] = rows
            missing |= {feature.name: cells.missing} if cells.missing else {}
            unknown |= {feature.name: cells.unknown} if cells.unknown else {}
    integers = smallest(blocks["integers"], spec.integer_defaults(source))
    return FeatureTable(
        ids,
        blocks["values"],
        missing,
        unknown,
        integers,
        blocks["times"],
        halves=blocks["halves"],
    )


def _cells(
    block: Block,
    series: pd.Series,
    feature: Feature,
    place: str,
    vocabularies: Mapping[str, TextNumbers],
) -> Cells:
    if block == "times":
        return time_cells(series, place)
    if feature.vocabulary:
        return vocabulary_cells(series, feature, place, vocabularies[feature.vocabulary])
    if block == "integers":
        return integer_cells(series, feature, place)
    cells = float32_cells(series, feature, place)
    if block == "halves":
        check_float16(cells.rows, place)
    return cells


def _texts(spec: FeatureSpec, source: Source, keys: Collection[str]) -> set[str]:
    """The columns that are read as texts: ids, lists as JSON, and what a vocabulary numbers, where
    no other feature reads the column as a number."""
    features = spec.columns(source)
    texts = {f.column for f in features if f.vocabulary or f.size}
    texts -= {f.column for f in features if not (f.vocabulary or f.size)}
    return texts | {*keys} if spec.ids == "text" else texts - {*keys}


def _ids(series: pd.Series, place: str) -> IntArray:
    if not pd.api.types.is_integer_dtype(series) or series.isna().any():
        raise PublishError(f"{place} must hold whole numbers, in every row")
    if len(series) and series.min() < 0:
        raise PublishError(f"{place} must not be negative")
    if len(series) and (largest := int(series.max())) > MAX_ID:
        raise PublishError(f"{place} holds {largest}, the largest id is {MAX_ID}")
    ids: IntArray = series.to_numpy(dtype=np.int64)
    return ids


def _text_ids(series: pd.Series, place: str) -> IntArray:
    """The 63-bit keys of the texts. Raises PublishError where two texts share one."""
    if series.isna().any() or pd.api.types.infer_dtype(series) not in TEXT_KINDS:
        raise PublishError(f"{place} must hold texts, in every row, as ids are text")
    texts = series.astype(str)
    if len(texts) and (texts.str.len().max() > MAX_ID_LENGTH or texts.str.len().min() == 0):
        raise PublishError(f"{place} must have 1 to {MAX_ID_LENGTH} characters")
    unique, which = np.unique(texts.to_numpy(dtype=object), return_inverse=True)
    text_ids = text_keys(unique.tolist())
    if len(np.unique(text_ids)) < len(unique):
        raise PublishError(f"{place}: two of its values share a 63-bit key; rename one")
    return text_ids[which]
