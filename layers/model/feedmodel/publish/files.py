"""Tables from Parquet and CSV files, with texts as they are written."""

import warnings
from collections.abc import Collection, Sequence
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
    if path.suffix not in SUFFIXES:
        raise PublishError(f"{path.name}: a table is a .parquet or a .csv file")
    if not path.is_file():
        raise PublishError(f"{path}: there is no such file")
    try:
        frame = _read_csv(path, texts) if path.suffix == ".csv" else _read_parquet(path, columns)
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise PublishError(f"{path.name}: can't be read: {error}") from error
    return frame if columns is None else frame[[name for name in frame if name in columns]]


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


def _read_parquet(path: Path, columns: Collection[str] | None) -> pd.DataFrame:
    names = pq.read_schema(path).names
    _check_names(path, names)
    stored = None if columns is None else [column for column in names if column in columns]
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
