"""A table of past requests, a row for each item that was shown, as the queries that serving gets.

| column | holds |
| --- | --- |
| `user_id`, `item_id` | whole numbers or, where the spec's ids are text, texts |
| `timestamp` | Unix seconds, dates, or ISO 8601 texts, UTC where there is no offset |
| `request_id` | optional: what was scored together |
| each context key that the spec reads | the value as sent; empty where the caller left it out |
| each candidate feature of the spec | one number, text or list an item; empty: the default |

Without `request_id`, rows of one user, moment and context are one request. A request of more than
MAX_ITEMS items, which serving would refuse, becomes several.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.cells import LATEST_S, time_cells
from feedrank.domain import MAX_ID, MAX_ID_LENGTH, MAX_ITEMS, NO_CANDIDATES, IntArray, Query
from feedrank.errors import InvalidRequestError
from feedrank.features import expressions
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import TIMESTAMP, ContextKeys
from feedrank.features.spec import FeatureSpec
from feedrank.http.schemas import time_of

IDS = ("user_id", "item_id")
REQUEST = "request_id"
NO_TIME = ("equals(", "number(", "text(", "list(")  # expressions that don't read it
TEXT_KINDS = {"string", "empty"}


class PastRequest(NamedTuple):
    rows: IntArray  # (items,) positions in the table
    query: Query


class _Moments(NamedTuple):
    seconds: NDArray[np.float64]  # (rows,)
    texts: Sequence[str] | None  # where they were written as texts, or have an offset


def past_requests(
    spec: FeatureSpec, table: pd.DataFrame, candidates: CandidateFeatures, place: str
) -> Iterator[PastRequest]:
    """The requests, with the rows of each. `place` begins the text of an error.

    Raises PublishError that names the column.
    """
    if table.empty:
        return
    users, items = (_ids(table[key], spec, f"{place}: {key}") for key in IDS)
    moments = _moments(table, spec, place)
    sent = {key: _sent_texts(table[key], f"{place}: {key}") for key in context_columns(spec, table)}
    cells = {
        feature.name: [plain(cell, whole=bool(feature.vocabulary)) for cell in table[feature.name]]
        for feature in spec.columns("candidate")
        if feature.name in table
    }
    for rows in _rows_of_each(table, users, moments, sent, place):
        first = int(rows[0])
        context = {key: text for key, texts in sent.items() if (text := texts[first]) is not None}
        if moments.texts:
            context[TIMESTAMP] = moments.texts[first]
        for start in range(0, len(rows), MAX_ITEMS):
            part = rows[start : start + MAX_ITEMS]
            of_items = _candidates(candidates, cells, part, place)
            query = Query(
                users[first],
                [items[at] for at in part],
                context,
                float(moments.seconds[first]),
                of_items,
            )
            yield PastRequest(part, query)


def context_columns(spec: FeatureSpec, table: pd.DataFrame) -> list[str]:
    """Those of the context's keys that the table has, without the timestamp."""
    return [key for key in ContextKeys(spec).known if key in table and key != TIMESTAMP]


def readable_columns(spec: FeatureSpec) -> set[str]:
    """All that a table of requests may have."""
    return {*IDS, REQUEST, TIMESTAMP, *ContextKeys(spec).known, *CandidateFeatures(spec).names}


def text_columns(spec: FeatureSpec) -> set[str]:
    """Those that a CSV file gives as they are written."""
    ids = {*IDS} if spec.ids == "text" else set()
    categories = {f.name for f in spec.columns("candidate") if f.vocabulary and not f.size}
    return ids | categories | {*ContextKeys(spec).known} - {TIMESTAMP}


def columns_read(spec: FeatureSpec) -> list[str]:
    """Those that features are made of: without one of them its default would stand in every row."""
    keys = [expressions.parse(feature.expression).key for feature in spec.columns("context")]
    read = [*IDS, *([TIMESTAMP] if reads_time(spec) else []), *filter(None, keys)]
    return list(dict.fromkeys([*read, *(feature.name for feature in spec.columns("candidate"))]))


def reads_time(spec: FeatureSpec) -> bool:
    """An expression of a team's own may read it beside its key."""
    return any(f.is_time for i in spec.inputs for f in i.features) or any(
        not feature.expression.startswith(NO_TIME) for feature in spec.columns("context")
    )


def _rows_of_each(
    table: pd.DataFrame,
    users: Sequence[Any],
    moments: _Moments,
    sent: Mapping[str, Sequence[str | None]],
    place: str,
) -> list[IntArray]:
    """The positions of each request's rows, requests and rows in the order of the table."""
    keys = pd.DataFrame({"user": users, "s": moments.seconds, "text": moments.texts or ""})
    for key, texts in sent.items():
        keys[f"context.{key}"] = texts
    if REQUEST in table:
        keys[REQUEST] = table[REQUEST].to_numpy()
        if keys[REQUEST].isna().any():
            raise PublishError(f"{place}: {REQUEST} must be in every row, or be left out")
        mixed = keys.drop_duplicates()[REQUEST].duplicated()
        if mixed.any():
            one = keys.drop_duplicates()[REQUEST][mixed].iloc[0]
            raise PublishError(
                f"{place}: the rows of {REQUEST} {one} have several users, times or contexts"
            )
    same = keys.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    ends = np.cumsum(np.bincount(same))
    return np.split(np.argsort(same, kind="stable"), ends[:-1])


def _candidates(
    candidates: CandidateFeatures, cells: Mapping[str, Sequence[Any]], rows: IntArray, place: str
) -> Mapping[str, NDArray[Any]]:
    if not cells:
        return NO_CANDIDATES
    sent = {name: [column[at] for at in rows] for name, column in cells.items()}
    try:
        return candidates.read(sent, len(rows))
    except InvalidRequestError as error:
        raise PublishError(f"{place}: row {rows[0]:,} and those of its request: {error}") from error


def _ids(column: pd.Series, spec: FeatureSpec, place: str) -> list[Any]:
    if spec.ids == "text":
        if column.isna().any() or pd.api.types.infer_dtype(column.astype(object)) not in TEXT_KINDS:
            raise PublishError(f"{place} must hold texts, in every row, as the spec's ids are text")
        texts: list[Any] = column.astype(object).tolist()
        if any(not 1 <= len(text) <= MAX_ID_LENGTH for text in texts):
            raise PublishError(f"{place} must have 1 to {MAX_ID_LENGTH} characters")
        return texts
    if not pd.api.types.is_integer_dtype(column) or column.isna().any():
        raise PublishError(f"{place} must hold whole numbers, in every row")
    if column.min() < 0 or column.max() > MAX_ID:
        raise PublishError(f"{place} must be from 0 to {MAX_ID}")
    numbers: list[Any] = column.tolist()
    return numbers


def _moments(table: pd.DataFrame, spec: FeatureSpec, place: str) -> _Moments:
    place = f"{place}: {TIMESTAMP}"
    if TIMESTAMP not in table:
        if reads_time(spec):
            raise PublishError(f"{place} is needed, as the model reads the time of a request")
        return _Moments(np.zeros(len(table)), None)
    column, of_offset = table[TIMESTAMP], _reads_offset(spec)
    if column.isna().any():
        raise PublishError(f"{place} must be in every row")
    if pd.api.types.infer_dtype(column.astype(object), skipna=True) == "string":
        texts = column.astype(str).tolist()
        return _Moments(_bounded(_seconds_of(texts, place), place), texts)
    if of_offset and pd.api.types.is_numeric_dtype(column):
        raise PublishError(f"{place} must hold texts with an offset, as the model reads that")
    seconds = _bounded(time_cells(column, place).rows[:, 0], place)
    return _Moments(seconds, [_with_offset(cell) for cell in column] if of_offset else None)


def _seconds_of(texts: Sequence[str], place: str) -> NDArray[np.float64]:
    """As serving reads them."""
    seconds: dict[str, float] = {}
    for text in dict.fromkeys(texts):
        try:
            seconds[text] = time_of({TIMESTAMP: text}, 0.0)
        except (ValueError, OverflowError) as error:
            raise PublishError(f"{place}: {text!r} is no ISO 8601 time") from error
    return np.array([seconds[text] for text in texts])


def _bounded(seconds: NDArray[np.float64], place: str) -> NDArray[np.float64]:
    if not (np.abs(seconds) <= LATEST_S).all():
        raise PublishError(f"{place} holds {seconds.max():g}: numbers are Unix seconds")
    return seconds


def _with_offset(cell: str | datetime) -> str:
    text: str = (cell if isinstance(cell, datetime) else pd.Timestamp(cell)).isoformat()
    return text


def _reads_offset(spec: FeatureSpec) -> bool:
    return any(f"({expressions.OFFSET})" in f.expression for f in spec.columns("context"))


def _sent_texts(column: pd.Series, place: str) -> list[str | None]:
    """As a caller sends them: a whole number has no point, a list has commas. None is not sent."""
    return [None if is_empty(cell) else _sent_text(cell, place) for cell in column]


def _sent_text(cell: object, place: str) -> str:
    if isinstance(cell, bool | np.bool_):
        raise PublishError(f"{place} holds booleans: write the texts that callers send")
    if isinstance(cell, np.ndarray | list | tuple):
        parts = [_sent_text(part, place) for part in cell]
        if any("," in part for part in parts):
            raise PublishError(f"{place}: a list's texts can't have commas, which divide them")
        return ",".join(parts)
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def plain(cell: object, *, whole: bool = False) -> object:
    """As JSON would have it. With `whole`, 3.0 is 3: pandas makes floats of whole numbers where one
    is missing."""
    if isinstance(cell, np.ndarray | list | tuple):
        return [plain(part, whole=whole) for part in cell]
    if is_empty(cell):
        return None
    if isinstance(cell, np.generic):
        cell = cell.item()
    return int(cell) if whole and isinstance(cell, float) and cell.is_integer() else cell


def is_empty(cell: object) -> bool:
    """None, NaN or a missing value of pandas'."""
    return (
        cell is None
        or cell is pd.NaT
        or cell is pd.NA
        or (isinstance(cell, float | np.floating) and isnan(cell))
    )
