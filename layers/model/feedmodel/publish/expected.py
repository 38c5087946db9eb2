"""Compares a bundle with the scores that the team's own evaluation gave.

Comparing ONNX with torch can't see a wrong column, unit, default, hour or vocabulary: both engines
read the same wrong matrix. The team's own scores can.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.comparison import Comparison, Inputs, Scorer
from feedmodel.publish.files import read_frame
from feedmodel.publish.names import EXPECTED_TOLERANCE
from feedmodel.publish.past_requests import (
    IDS,
    PastRequest,
    past_requests,
    readable_columns,
    text_columns,
)
from feedmodel.publish.reasons import SCORE, reasons
from feedmodel.publish.tables import TableName
from feedrank.domain import FeatureRows, FloatArray, Query
from feedrank.errors import InvalidRequestError, ScoringError
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import ContextKeys
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.model.engines import can_explain, is_stoppable
from feedrank.model.load import load_model
from feedrank.ranking.pipeline import best_first
from feedrank.settings import Settings

SHOWN = 5  # rows
LOAD_S = "60"
FATAL = 4  # of ONNX Runtime's log severities
PROGRESS_ROWS = 20_000
NO_TABLES: Mapping[TableName, Path | None] = {}


class ServedBundle:
    """A bundle as a container has it. Raises what loading one raises."""

    def __init__(self, uri: str, digest: str = "") -> None:
        with TemporaryDirectory() as cache:
            variables = {"MODEL_URI": uri, "MODEL_CACHE_DIR": cache, "MODEL_LOAD_SECONDS": LOAD_S}
            self.model = load_model(uri, digest, Settings.from_environment(variables))
        store = self.model.features
        if not isinstance(store, SnapshotStore):
            raise PublishError(f"{uri}: its features are not the snapshot's")
        self._store = store
        self._run = ort.RunOptions()
        # What can't be scored is said in words, and the search for a reason tries what can't be.
        self._run.log_severity_level = FATAL

    @property
    def spec(self) -> FeatureSpec:
        return self.model.spec

    @property
    def candidates(self) -> CandidateFeatures:
        return self.model.candidates

    @property
    def context(self) -> ContextKeys:
        return self.model.context

    def look_up(self, query: Query) -> FeatureRows:
        return self._store.look_up(query)

    def inputs(self, query: Query) -> Inputs:
        return self.model.matrix.build(query, self._store.look_up(query))

    def score(self, inputs: Inputs) -> FloatArray:
        engine = self.model.engine
        scores = engine.score(inputs, self._run) if is_stoppable(engine) else engine.score(inputs)
        best_first(scores, self.spec.range)
        return scores

    def outputs(self, inputs: Inputs) -> FloatArray:
        engine = self.model.engine
        assert can_explain(engine)
        return engine.explain(inputs, self._run)[1]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`apart` is the largest difference over `rows` rows, of which some have a user or an item that
    no table has: there the defaults were compared."""

    rows: int
    requests: int
    apart: float
    unknown_users: int = 0
    unknown_items: int = 0

    def __str__(self) -> str:
        text = f"{self.apart:.1e} at most, {self.rows:,} rows in {self.requests:,} requests"
        for what, count in (("user", self.unknown_users), ("item", self.unknown_items)):
            if count:
                rows = "all of an unknown" if count == self.rows else f"{count:,} of an unknown"
                text += f"; {rows} {what}"
        return text


def compare(
    scorer: Scorer,
    path: Path,
    tolerance: float = EXPECTED_TOLERANCE,
    *,
    tables: Mapping[TableName, Path | None] = NO_TABLES,
    step: Callable[[str], None] = lambda _: None,
) -> Agreement:
    """Raises PublishError that shows the rows which differ most, and what they have in common.
    `tables` are the files that the bundle's own came from."""
    table = read_expected(path, scorer.spec)
    expected = _expected(table, path)
    requests: list[PastRequest] = []
    scores, rows = np.full(len(table), np.nan), 0
    for request in past_requests(scorer.spec, table, scorer.candidates, path.name):
        if rows // PROGRESS_ROWS < (rows + len(request.rows)) // PROGRESS_ROWS or not rows:
            step(f"comparing with {path.name}: {rows:,} of {len(table):,} rows")
        requests.append(request)
        scores[request.rows] = _scores(scorer, request, table)
        rows += len(request.rows)
    comparison = Comparison(scorer, table, requests, scores, expected, tolerance, tables)
    worst = float(np.nan_to_num(comparison.apart, nan=np.inf).max())
    if not comparison.differs.any():
        return Agreement(len(table), len(requests), worst, *_unknown(scorer, requests))
    step("looking for the reason")
    text = (
        f"{path.name}: {int(comparison.differs.sum()):,} of {len(table):,} scores differ by more "
        f"than {tolerance:g}, by {worst:.3g} at most"
    )
    raise PublishError("\n".join([text, *_shown(comparison), *reasons(comparison)]))


def read_expected(path: Path, spec: FeatureSpec) -> pd.DataFrame:
    """The rows of a file of a team's scores. Raises PublishError."""
    table = read_frame(path, texts=text_columns(spec))
    if table.empty:
        raise PublishError(f"{path.name}: has no rows")
    _check_columns(table, spec, path)
    return table


def _scores(scorer: Scorer, request: PastRequest, table: pd.DataFrame) -> FloatArray:
    query, first = request.query, int(request.rows[0])
    if problems := scorer.context.problems(query.context):
        raise PublishError(
            f"{_row_named(table, first)}: a container refuses this request: {'; '.join(problems)}"
        )
    try:
        scores = scorer.score(scorer.inputs(query))
    except (ScoringError, InvalidRequestError) as error:
        cause = str(error.__cause__ or error)
        raise PublishError(f"{_row_named(table, first)}: can't be scored: {cause}") from error
    if len(scores) != len(request.rows):
        raise PublishError(f"{len(scores)} scores for {len(request.rows)} items")
    return scores


def _unknown(scorer: Scorer, requests: Sequence[PastRequest]) -> tuple[int, int]:
    """Rows of users and of items that no table has."""
    users = items = 0
    for request in requests:
        rows = scorer.look_up(request.query)
        users += rows.unknown_user * len(request.rows)
        items += int(rows.unknown_items.sum())
    return users, items


def _shown(comparison: Comparison) -> Iterator[str]:
    apart = np.nan_to_num(comparison.apart, nan=np.inf)
    for at in np.argsort(-apart, kind="stable")[:SHOWN].tolist():
        if comparison.differs[at]:
            yield (
                f"{_row_named(comparison.table, at)}: expected {comparison.expected[at]:.7g}, "
                f"the bundle gives {comparison.scores[at]:.7g}"
            )


def _row_named(table: pd.DataFrame, at: int) -> str:
    row = table.iloc[at]
    return ", ".join(f"{name} {row[name]}" for name in table.columns if name != SCORE)


def _check_columns(table: pd.DataFrame, spec: FeatureSpec, path: Path) -> None:
    readable = readable_columns(spec)
    if missing := [key for key in (*IDS, SCORE) if key not in table]:
        raise PublishError(f"{path.name}: lacks the column {', '.join(missing)}")
    if unknown := [str(column) for column in table if column not in {*readable, SCORE}]:
        raise PublishError(
            f"{path.name}: this model reads nothing of {', '.join(unknown)}; beside "
            f"{', '.join((*IDS, SCORE))} there may be {', '.join(sorted(readable - {*IDS}))}"
        )


def _expected(table: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    try:
        scores: NDArray[Any] = table[SCORE].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PublishError(f"{path.name}: {SCORE} must be numbers: {error}") from error
    if not np.isfinite(scores).all():
        raise PublishError(f"{path.name}: {SCORE} must be finite in every row")
    return scores
