"""Compares a bundle with the scores that the team's own evaluation gave.

Comparing ONNX with torch can't see a wrong column, unit, default, hour or vocabulary: both engines
read the same wrong matrix. The team's own scores can.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedrank.domain import MAX_ITEMS, Query
from feedrank.errors import InvalidRequestError, ScoringError
from feedrank.features import expressions
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import TIMESTAMP, ContextKeys
from feedrank.features.spec import FeatureSpec
from feedrank.features.vocabulary import text_key, text_keys

TOLERANCE = 1e-5  # of a score up to 1, and of a larger one's size
SHOWN = 5  # rows
KEYS = ("user_id", "item_id", "score")
REQUEST = "request_id"  # items that were scored together, where a model looks at the whole list
MOST_EXPLAINED = 20  # requests in which a single changed feature is tried as the reason
MOSTLY = 0.9  # of their rows that it has to mend
Inputs = Mapping[str, NDArray[Any]]
CHANGES: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "log1p of it": lambda x: np.log1p(np.maximum(x, 0)),
    "expm1 of it": lambda x: np.expm1(np.minimum(x, 80)),
    "60 times it": lambda x: x * 60,
    "a 60th of it": lambda x: x / 60,
    "1,000 times it": lambda x: x * 1_000,
    "a 1,000th of it": lambda x: x / 1_000,
    "100 times it": lambda x: x * 100,
    "a 100th of it": lambda x: x / 100,
    "24 times it": lambda x: x * 24,
    "a 24th of it": lambda x: x / 24,
    "86,400 times it": lambda x: x * 86_400,
    "an 86,400th of it": lambda x: x / 86_400,
    "one more": lambda x: x + 1,
    "one less": lambda x: x - 1,
    "zero": lambda x: x * 0,
    "missing (NaN)": lambda x: np.full_like(x, np.nan) if x.dtype.kind == "f" else x,
}


class Scorer(Protocol):
    """A bundle's tables, layout and engine, as a container has them."""

    @property
    def spec(self) -> FeatureSpec: ...

    @property
    def candidates(self) -> CandidateFeatures: ...

    def inputs(self, query: Query) -> Inputs: ...

    def score(self, inputs: Inputs) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Agreement:
    """`apart` is the largest difference over `rows` rows."""

    rows: int
    requests: int
    apart: float


@dataclass(frozen=True, slots=True)
class _Compared:
    query: Query
    inputs: Inputs
    expected: NDArray[np.float64]
    apart: NDArray[np.float64]  # NaN where the model gives NaN
    rows: list[Mapping[str, Any]]  # of the file, for messages


class _Change(NamedTuple):
    """Of a feature's columns in a model input."""

    input: str
    at: slice
    function: Callable[[NDArray[Any]], NDArray[Any]]


def compare(scorer: Scorer, path: Path, tolerance: float = TOLERANCE) -> Agreement:
    """Raises PublishError that shows the rows which differ most, and what they have in common."""
    compared = [_compared(scorer, *request) for request in _requests(scorer, path)]
    rows = sum(len(each.expected) for each in compared)
    bad = sum(int((~_near(each, tolerance)).sum()) for each in compared)
    worst = max((float(np.nan_to_num(e.apart, nan=np.inf).max()) for e in compared), default=0.0)
    if not bad:
        return Agreement(rows, len(compared), worst)
    text = (
        f"{path.name}: {bad:,} of {rows:,} scores differ by more than {tolerance:g}, "
        f"by {worst:.3g} at most"
    )
    raise PublishError("\n".join([text, *_shown(compared), *_reasons(scorer, compared, tolerance)]))


def _compared(
    scorer: Scorer, query: Query, expected: NDArray[np.float64], rows: list[Mapping[str, Any]]
) -> _Compared:
    try:
        inputs = scorer.inputs(query)
        scores = scorer.score(inputs)
    except (ScoringError, InvalidRequestError) as error:
        cause = str(error.__cause__ or error)
        raise PublishError(f"{_row_named(rows[0])}: can't be scored: {cause}") from error
    if len(scores) != len(expected):
        raise PublishError(f"{len(scores)} scores for {len(expected)} items")
    return _Compared(query, inputs, expected, np.abs(scores - expected), rows)


def _near(compared: _Compared, tolerance: float) -> NDArray[np.bool_]:
    """NaN is near nothing."""
    near: NDArray[np.bool_] = compared.apart <= tolerance * np.maximum(
        1.0, np.abs(compared.expected)
    )
    return near


def _shown(compared: Sequence[_Compared]) -> Iterator[str]:
    rows = [
        (float(apart), row, float(expected))
        for each in compared
        for apart, row, expected in zip(each.apart, each.rows, each.expected, strict=True)
    ]
    for apart, row, expected in sorted(rows, key=lambda r: -np.nan_to_num(r[0], nan=np.inf))[
        :SHOWN
    ]:
        yield f"{_row_named(row)}: expected {expected:.7g}, {apart:.3g} apart"


def _row_named(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items() if name != "score")


def _reasons(scorer: Scorer, compared: Sequence[_Compared], tolerance: float) -> Iterator[str]:
    """The single change of one feature under which most of the rows would agree, if there is one;
    and the value that most of the rows which differ share."""
    differing = [each for each in compared if not _near(each, tolerance).all()][:MOST_EXPLAINED]
    for name, at, label in _columns(scorer.spec):
        for text, function in CHANGES.items():
            if _mends(scorer, differing, _Change(name, at, function), tolerance):
                yield f"they would agree if {label} were {text}: is its column or unit another?"
                return
    if shared := _shared_value(scorer.spec, compared, tolerance):
        yield shared


def _columns(spec: FeatureSpec) -> Iterator[tuple[str, slice, str]]:
    for input_ in spec.inputs:
        start = 0
        for feature in input_.features:
            yield input_.name, slice(start, start + feature.width), feature.name
            start += feature.width


def _flat(tensor: NDArray[Any], spec: FeatureSpec, name: str) -> NDArray[Any]:
    """(rows, columns), whatever the model's shape of it."""
    width = next(input_.width for input_ in spec.inputs if input_.name == name)
    return tensor.reshape(-1, width)


def _mends(
    scorer: Scorer, differing: Sequence[_Compared], change: _Change, tolerance: float
) -> bool:
    near = rows = 0
    for each in differing:
        changed = each.inputs[change.input].copy()
        table = _flat(changed, scorer.spec, change.input)
        with np.errstate(all="ignore"):
            table[:, change.at] = change.function(table[:, change.at])
        try:
            scores = scorer.score({**each.inputs, change.input: changed})
        except ScoringError:
            return False
        again = replace(each, apart=np.abs(scores - each.expected))
        near += int(_near(again, tolerance).sum())
        rows += len(again.apart)
        if near < MOSTLY * rows:
            return False
    return rows > 0


def _shared_value(spec: FeatureSpec, compared: Sequence[_Compared], tolerance: float) -> str | None:
    """The feature and value that tell best which rows differ: most of those that differ have it,
    and few others do."""
    bad = np.concatenate([~_near(each, tolerance) for each in compared])
    if bad.all():
        return None
    best, told = 0.0, None
    for name, at, label in _columns(spec):
        if at.stop - at.start > 1:
            continue
        cells = np.concatenate([_spread(each, spec, name)[:, at.start] for each in compared])
        values, counts = np.unique(cells[bad], return_counts=True)
        if not len(values):
            continue
        value = values[counts.argmax()]
        has = cells == value
        overlap = (has & bad).sum() / (has | bad).sum()
        if overlap > best and overlap >= MOSTLY:
            best, told = overlap, f"rows with {label} {value:g} differ, and nearly no other"
    return told


def _spread(compared: _Compared, spec: FeatureSpec, name: str) -> NDArray[Any]:
    """(items, columns): what is one row a request is the same for each item."""
    table = _flat(compared.inputs[name], spec, name)
    return np.broadcast_to(table, (len(compared.expected), table.shape[1]))


def _requests(
    scorer: Scorer, path: Path
) -> Iterator[tuple[Query, NDArray[np.float64], list[Mapping[str, Any]]]]:
    """Rows of one user, moment and context are one request, or those of one `request_id`."""
    frame, spec = _read(path), scorer.spec
    known = ContextKeys(spec)
    _check_columns(frame, spec, path)
    context = [column for column in frame.columns if column in {*known.known, TIMESTAMP}]
    keys = ["user_id", *context, *([REQUEST] if REQUEST in frame else [])]
    for _, group in frame.groupby(keys, sort=False, dropna=False):
        for start in range(0, len(group), MAX_ITEMS):
            part = group.iloc[start : start + MAX_ITEMS]
            yield _query(scorer, part, context), _scores(part, path), _rows(part)


def _query(scorer: Scorer, part: pd.DataFrame, context: Sequence[str]) -> Query:
    first, candidates = part.iloc[0], scorer.candidates
    sent = {key: str(first[key]) for key in context if not _empty(first[key])}
    time_s = _seconds(first[TIMESTAMP]) if TIMESTAMP in part else 0.0
    cells = {
        name: [_plain(cell) for cell in part[name]] for name in candidates.names if name in part
    }
    try:
        features = candidates.read(cells, len(part))
    except InvalidRequestError as error:
        raise PublishError(str(error)) from error
    if scorer.spec.ids == "text":
        user, items = text_key(str(first["user_id"])), text_keys(list(map(str, part["item_id"])))
    else:
        user, items = int(first["user_id"]), part["item_id"].to_numpy(dtype=np.int64)
    return Query(user, items.tolist(), sent, time_s, features)


def _check_columns(frame: pd.DataFrame, spec: FeatureSpec, path: Path) -> None:
    known, candidates = ContextKeys(spec), CandidateFeatures(spec)
    if missing := [key for key in KEYS if key not in frame]:
        raise PublishError(f"{path.name}: lacks the column {', '.join(missing)}")
    readable = {*KEYS, REQUEST, TIMESTAMP, *known.known, *candidates.names}
    if unknown := [str(column) for column in frame.columns if column not in readable]:
        raise PublishError(
            f"{path.name}: this model reads nothing of {', '.join(unknown)}; beside "
            f"{', '.join(KEYS)} there may be {', '.join(sorted(readable - {*KEYS}))}"
        )
    if _reads_time(spec) and TIMESTAMP not in frame:
        raise PublishError(
            f"{path.name}: the model reads the time of a request, so the column {TIMESTAMP} is "
            "needed: Unix seconds, or dates with an offset"
        )


def _reads_time(spec: FeatureSpec) -> bool:
    features = [feature for input_ in spec.inputs for feature in input_.features]
    return any(f.is_time for f in features) or any(
        expressions.parse(f.expression).key is None for f in features if f.source == "context"
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
        frame = read(path)
    except (OSError, ValueError) as error:
        raise PublishError(f"{path}: can't be read: {error}") from error
    if not len(frame):
        raise PublishError(f"{path.name}: has no rows")
    return frame


def _scores(part: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    try:
        scores = part["score"].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PublishError(f"{path.name}: score must be numbers: {error}") from error
    if not np.isfinite(scores).all():
        raise PublishError(f"{path.name}: score must be finite in every row")
    return scores


def _rows(part: pd.DataFrame) -> list[Mapping[str, Any]]:
    return [dict(zip(part.columns, row, strict=True)) for row in part.itertuples(index=False)]


def _seconds(value: object) -> float:
    """Unix seconds; a date without an offset is UTC."""
    if isinstance(value, int | float | np.integer | np.floating):
        return float(value)
    moment = pd.Timestamp(str(value))
    return (moment.tz_localize("UTC") if moment.tz is None else moment).timestamp()


def _plain(cell: Any) -> Any:  # noqa: ANN401
    """As JSON would have it."""
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    if isinstance(cell, np.generic):
        cell = cell.item()
    return None if _empty(cell) else cell


def _empty(cell: Any) -> bool:  # noqa: ANN401
    return cell is None or cell is pd.NaT or (isinstance(cell, float) and np.isnan(cell))
