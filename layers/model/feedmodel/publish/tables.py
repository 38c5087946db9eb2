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
    together,
    vocabulary_cells,
)
from feedmodel.publish.files import SUFFIXES, read_frame
from feedmodel.publish.float32 import check_default
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
ROWS_NAMED = 1_000  # at most: golden requests need the texts of some ids
TEXT_KINDS = {"string", "categorical", "empty"}


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """`ids` is (rows, id columns) int64 in ascending order; `values` float32, `integers` int32 or
    int64 and `times` float64 (Unix seconds) are (rows, columns) in the order of
    `FeatureSpec.block`. `missing` counts, by column, the empty cells, which hold the spec's
    default, `unknown` the cells that no vocabulary has, which are 0. `names` are the texts of some
    ids, where ids are text."""

    ids: IntArray
    values: FloatArray
    missing: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    integers: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    names: Mapping[int, str] = field(default_factory=dict)


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
    frame = read_frame(path, columns, _texts(spec, source, keys))
    if absent := sorted(columns - {*frame.columns}):
        raise PublishError(f"{path.name}: lacks the column {', '.join(absent)}")
    ids = _text_ids(frame, keys, path) if spec.ids == "text" else _ids(frame, keys, path)
    order = np.lexsort(ids.T[::-1])
    if not (order[1:] > order[:-1]).all():  # no copy where the table is sorted already
        ids, frame = ids[order], frame.take(order)
    table = _table_of(spec, source, frame, ids, path=path, vocabularies=vocabularies)
    return replace(table, names=_names(frame, keys, ids)) if spec.ids == "text" else table


def _names(frame: pd.DataFrame, keys: Sequence[str], ids: IntArray) -> dict[int, str]:
    """Of rows throughout the table."""
    at = np.linspace(0, len(ids) - 1, min(len(ids), ROWS_NAMED)).astype(np.int64)
    texts = frame[list(keys)].iloc[at].astype(str).to_numpy(dtype=object)
    return dict(zip(ids[at].ravel().tolist(), texts.ravel().tolist(), strict=True))


def _table_of(
    spec: FeatureSpec,
    source: Source,
    frame: pd.DataFrame,
    ids: IntArray,
    *,
    path: Path,
    vocabularies: Mapping[str, TextNumbers],
) -> FeatureTable:
    cells: dict[Block, dict[str, Cells]] = {}
    for block in get_args(Block):
        cells[block] = {
            feature.name: _cells(
                block,
                frame[feature.column],
                feature,
                f"{path.name}: column {feature.column}",
                vocabularies,
            )
            for feature in spec.block(source, block)
        }
    flat = {name: each for block in cells.values() for name, each in block.items()}
    return FeatureTable(
        ids,
        together(cells["values"], len(ids), np.float32),
        {name: each.missing for name, each in flat.items() if each.missing},
        {name: each.unknown for name, each in flat.items() if each.unknown},
        smallest(together(cells["integers"], len(ids), np.int64), spec.integer_defaults(source)),
        together(cells["times"], len(ids), np.float64),
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
    return float32_cells(series, feature, place)


def _texts(spec: FeatureSpec, source: Source, keys: Collection[str]) -> set[str]:
    """The columns that are read as texts: ids, lists as JSON, and what a vocabulary numbers, where
    no other feature reads the column as a number."""
    features = spec.columns(source)
    texts = {f.column for f in features if f.vocabulary or f.size}
    texts -= {f.column for f in features if not (f.vocabulary or f.size)}
    return texts | {*keys} if spec.ids == "text" else texts - {*keys}


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


def _text_ids(frame: pd.DataFrame, keys: Sequence[str], path: Path) -> IntArray:
    """The 63-bit keys of the texts. Raises PublishError where two texts share one."""
    columns = []
    for key in keys:
        if frame[key].isna().any() or pd.api.types.infer_dtype(frame[key]) not in TEXT_KINDS:
            raise PublishError(f"{path.name}: {key} must hold texts, in every row, as ids are text")
        texts = frame[key].astype(str)
        if len(texts) and (texts.str.len().max() > MAX_ID_LENGTH or texts.str.len().min() == 0):
            raise PublishError(f"{path.name}: {key} must have 1 to {MAX_ID_LENGTH} characters")
        unique, which = np.unique(texts.to_numpy(dtype=object), return_inverse=True)
        text_ids = text_keys(unique.tolist())
        if len(np.unique(text_ids)) < len(unique):
            raise PublishError(f"{path.name}: two values of {key} share a 63-bit key; rename one")
        columns.append(text_ids[which])
    if frame.duplicated(list(keys)).any():
        raise PublishError(f"{path.name}: {' and '.join(keys)} must be unique")
    return np.stack(columns, axis=1)
