"""Tables from Parquet and CSV files, with texts as they are written."""

import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feedmodel.errors import PublishError

SUFFIXES = (".parquet", ".csv")
NO_NUMBER = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A"]
WHOLE_FLOATS = r"[+-]?\d+\.0"  # as pandas writes whole numbers where one of the column is missing


def read_frame(
    path: Path, columns: Collection[str] | None = None, texts: Collection[str] = frozenset()
) -> pd.DataFrame:
    """Those of the columns that the file has, or all; a wide Parquet table is not read whole.
    `texts` are those whose cells a CSV gives as they are written: 03 is not 3, NA is no empty cell.

    Raises PublishError.
    """
    _check_file(path)
    try:
        frame = _read_csv(path, texts) if path.suffix == ".csv" else _read_parquet(path, columns)
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise PublishError(f"{path.name}: can't be read: {error}") from error
    if columns is None or {*frame} <= {*columns}:
        return frame
    return frame[[name for name in frame if name in columns]]


class TableFile:
    """A table's columns, each read where it is used: a large Parquet file is never in memory as a
    whole. A CSV is read at once.

    Raises PublishError where it can't be read, or lacks one of them.
    """

    def __init__(self, path: Path, columns: Collection[str], texts: Collection[str]) -> None:
        _check_file(path)
        self.name = path.name
        self._path = path
        self._csv = read_frame(path, columns, texts) if path.suffix == ".csv" else None
        self._check(columns, _parquet_columns(path) if self._csv is None else self._csv)

    def read(self, columns: Collection[str]) -> pd.DataFrame:
        frame = read_frame(self._path, columns) if self._csv is None else self._csv
        self._check(columns, frame)  # an index that the schema describes may not be in the frame
        return frame[[*columns]]

    def _check(self, columns: Collection[str], there: Iterable[object]) -> None:
        if absent := sorted({*columns}.difference(there)):
            raise PublishError(f"{self.name}: lacks the column {', '.join(absent)}")


def _check_file(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise PublishError(f"{path.name}: a table is a .parquet or a .csv file")
    if not path.is_file():
        raise PublishError(f"{path}: there is no such file")


def _read_csv(path: Path, texts: Collection[str]) -> pd.DataFrame:
    """All columns: where some are chosen, pandas overlooks rows with more cells than names, whose
    values stand in other columns than they should."""
    written = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    _check_names(path, written.iloc[0].tolist())
    names = pd.read_csv(path, nrows=0, index_col=False).columns
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(
            path,
            index_col=False,
            dtype={name: str for name in names if name in texts},
            keep_default_na=False,
            na_values={name: [""] if name in texts else NO_NUMBER for name in names},
        )
    for name in names.intersection([*texts]):
        present = frame[name].dropna()
        if len(present) and present.str.fullmatch(WHOLE_FLOATS).all():
            frame[name] = frame[name].str.removesuffix(".0")
    return frame


def _parquet_columns(path: Path) -> list[str]:
    """With those that pandas stored as an index of equal steps, which has no column of its own."""
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError) as error:
        raise PublishError(f"{path.name}: can't be read: {error}") from error
    index = (schema.pandas_metadata or {}).get("index_columns", ())
    return [*schema.names, *(each["name"] for each in index if isinstance(each, dict))]


def _read_parquet(path: Path, columns: Collection[str] | None) -> pd.DataFrame:
    names = pq.read_schema(path).names
    _check_names(path, names)
    # Without any column pandas forgets an index that is described, not stored.
    stored = None if columns is None else [n for n in names if n in columns] or names[:1]
    try:
        frame = pd.read_parquet(path, columns=stored)
    except (TypeError, pa.ArrowInvalid):  # a type that pandas writes and can't read, such as lists
        frame = pq.read_table(path, columns=stored).to_pandas(ignore_metadata=True)
    index = [name for name in frame.index.names if name is not None]
    return frame.reset_index(index) if index else frame


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Of two columns with one name pandas would take the first, and call the second another. A
    heading may be empty, as that of an index is."""
    if doubled := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise PublishError(f"{path.name}: has the column {doubled[0]} more than once")
