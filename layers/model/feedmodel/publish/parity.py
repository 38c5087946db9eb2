"""Compares the code that serves with torch, before there is a bundle.

Three questions, each of which has refused a real model: does ONNX Runtime score every row of the
tables, does it score as torch does, and do scores tell items apart that the model tells apart?
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.export import Program, torch_scorer
from feedmodel.publish.golden import GOLDEN, MONDAY_S, UNKNOWN_ID, golden_case, parity_queries
from feedmodel.publish.snapshot import TABLES, Table, TableName
from feedrank.domain import MAX_ITEMS, FloatArray, IntArray, Query
from feedrank.errors import ScoringError
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec, Source
from feedrank.model.engines.onnx import OnnxEngine
from feedrank.ranking.batching import MAX_BATCH_ITEMS

MOST_APART = 1e-5
MOST_APART_SHARE = 1e-3  # of a score: small ones rank too
LEAST_APART = 1e-7  # ONNX Runtime's sigmoid is no closer to torch's near 0
MOST_MERGED_SHARE = 0.1  # of distinct outputs that may become equal scores: float32 rounds
MOST_AT_THE_ENDS = 0.9  # of the scores
MOST_PAIRS = 20_000  # of different pairs that are scored: each needs its own user and item
LARGEST_LOGIT = 30.0  # of a plausible classifier: e^-30 is beyond any click rate
PROGRESS_ROWS = 50_000
LONGEST_CAUSE = 200  # characters
NAN_HELP = (
    "a mean or an attention over nothing, such as an empty history, is the usual cause: let the "
    "model give such a row a value of its own"
)
MAP_HELP = "let the model map its outputs to [0, 1], as (output - least) / (most - least) does"
Inputs = dict[str, FloatArray]
Rows = tuple[IntArray, Inputs]  # ids of a table's rows, and the model's inputs for them
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Parity:
    """`apart` is the largest difference between a torch and an ONNX score, over `rows` rows.
    `batches` tells whether items of several requests may share a run; `cases` are golden."""

    apart: float
    rows: int
    batches: bool
    cases: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Scored:
    query: Query
    inputs: Inputs
    expected: FloatArray  # (items,) by torch


class Served:
    """The bundle's engine, tables and layout, as a container has them; and torch beside them."""

    def __init__(self, spec: FeatureSpec, onnx: Path, snapshot: Path, program: Program) -> None:
        self.spec = spec
        self.engine = OnnxEngine(onnx, threads=1)
        self.by_torch = torch_scorer(program.exported, program.inputs)
        self.logits = program.logits and torch_scorer(program.logits, program.inputs)
        self._store = SnapshotStore(snapshot, spec)
        self._matrix = MatrixBuilder(spec, self._store.vocabularies)

    def inputs(self, query: Query) -> Inputs:
        return self._matrix.build(query, self._store.look_up(query))


def compare(
    served: Served,
    tables: Mapping[TableName, Table],
    step: Step = lambda _: None,
) -> Parity:
    """Raises PublishError that names the request, the row or the column."""
    step("comparing ONNX with torch")
    queries = parity_queries(served.spec, tables)
    try:
        scored = [_by_torch(served, query) for query in queries]
    except _TorchError:
        check_rows(served, tables, step)  # which names the row, where it is one
        raise
    apart = max(_difference(served, each) for each in scored)
    _check_distinct(served, scored)
    check_rows(served, tables, step)
    return Parity(
        apart=apart,
        rows=sum(len(each.expected) for each in scored),
        batches=_batches(served, scored),
        cases=[golden_case(scored[number].query, scored[number].expected) for number in GOLDEN],
    )


class _TorchError(PublishError):
    """Torch could not score a request."""


def check_rows(served: Served, tables: Mapping[TableName, Table], step: Step) -> None:
    """Score each user and item once, and pairs up to MOST_PAIRS, as torch does: a category beyond
    the model's vocabulary fails only where it is read.

    Raises PublishError that names the first row which has no such score.
    """
    for name, rows_of in ROWS.items():
        rows, done = len(tables[name].ids), 0
        for ids, inputs in rows_of(served, tables):
            if done % PROGRESS_ROWS == 0:
                step(f"scoring the rows of {name}: {done:,} of {rows:,}")
            if trouble := _trouble(served, inputs, len(ids)):
                raise PublishError(_first_bad_row(served, name, ids, inputs) or trouble)
            done += len(ids)


def _item_rows(served: Served, tables: Mapping[TableName, Table]) -> Iterator[Rows]:
    ids = tables["items"].ids
    for start in range(0, len(ids), MAX_ITEMS):
        part = ids[start : start + MAX_ITEMS]
        yield part, served.inputs(Query(UNKNOWN_ID, part[:, 0].tolist(), {}, MONDAY_S))


def _user_rows(served: Served, tables: Mapping[TableName, Table]) -> Iterator[Rows]:
    """With the first item. A user is the same in each row of a request, so rows of several users
    are laid out here; an input that is one row a request has them one by one."""
    table, items = tables["users"], tables["items"].ids[:1, 0].tolist()
    item = items or [UNKNOWN_ID]
    if any(input_.per == "request" for input_ in served.spec.inputs):
        for row in table.ids:
            yield row[np.newaxis], served.inputs(Query(int(row[0]), item, {}, MONDAY_S))
        return
    base = served.inputs(Query(UNKNOWN_ID, item, {}, MONDAY_S))
    yield from _rows_of(served.spec, "user", table, base)


def _pair_rows(served: Served, tables: Mapping[TableName, Table]) -> Iterator[Rows]:
    """Each with its own user and item. Pairs are many and mostly counts: different rows once."""
    pairs = tables["pairs"]
    if not len(pairs.ids):
        return
    rows = pairs.values.ravel() if pairs.values.shape[1] == 1 else pairs.values
    _, first = np.unique(rows, axis=0, return_index=True)
    for at in first[np.linspace(0, len(first) - 1, min(len(first), MOST_PAIRS)).astype(int)]:
        user, item = pairs.ids[at]
        query = Query(int(user), [int(item)], {}, MONDAY_S)
        yield pairs.ids[at : at + 1], served.inputs(query)


def _rows_of(spec: FeatureSpec, source: Source, table: Table, base: Inputs) -> Iterator[Rows]:
    """One request's row, repeated, with each row of the table in its columns."""
    columns = [feature.name for feature in spec.columns(source)]
    places = [
        (input_.name, at, columns.index(feature.name))
        for input_ in spec.inputs
        for at, feature in enumerate(input_.features)
        if feature.source == source
    ]
    per_item = {input_.name for input_ in spec.inputs if input_.per == "item"}
    for start in range(0, len(table.ids), MAX_ITEMS):
        ids, values = table.ids[start : start + MAX_ITEMS], table.values[start : start + MAX_ITEMS]
        inputs = {
            name: np.repeat(row, len(ids), axis=0) if name in per_item else row
            for name, row in base.items()
        }
        for name, at, of in places:
            inputs[name][:, at] = values[:, of]
        yield ids, inputs


ROWS: dict[TableName, Callable[[Served, Mapping[TableName, Table]], Iterator[Rows]]] = {
    "items": _item_rows,
    "users": _user_rows,
    "pairs": _pair_rows,
}


def _trouble(served: Served, inputs: Inputs, items: int) -> str:
    """What is wrong with the scores of these rows, or nothing."""
    try:
        scores = served.engine.score(inputs)
    except ScoringError as error:
        cause = str(error.__cause__ or error)[:LONGEST_CAUSE]
        return f"ONNX Runtime can't score it; is a value beyond the model's vocabulary? {cause}"
    if len(scores) != items:
        return f"the model gives {len(scores)} scores for {items} items"
    if np.isnan(scores).any():
        return f"its score is NaN; {NAN_HELP}"
    if not (scores.min() >= 0 and scores.max() <= 1):
        return "its score is outside [0, 1]"
    return _other_by_torch(served, inputs, scores)


def _other_by_torch(served: Served, inputs: Inputs, scores: FloatArray) -> str:
    try:
        expected = served.by_torch(inputs)
    except Exception as error:  # noqa: BLE001 a model may raise anything
        cause = str(error)[:LONGEST_CAUSE]
        return f"torch can't score it; is a value beyond the model's vocabulary? {cause}"
    if not _is_near(scores, expected).all():
        return f"torch gives {expected[0]:.6g}, ONNX Runtime {scores[0]:.6g}"
    return ""


def _is_near(scores: FloatArray, expected: FloatArray) -> NDArray[np.bool_]:
    """NaN is near nothing."""
    near: NDArray[np.bool_] = np.abs(scores - expected) <= _allowed(expected)
    return near


def _allowed(expected: FloatArray) -> FloatArray:
    share = np.maximum(MOST_APART_SHARE * expected, LEAST_APART)
    allowed: FloatArray = np.minimum(MOST_APART, share)
    return allowed


def _first_bad_row(served: Served, name: TableName, ids: IntArray, inputs: Inputs) -> str:
    """Nothing where each row has its score when it is alone."""
    _, keys = TABLES[name]
    per_item = {input_.name for input_ in served.spec.inputs if input_.per == "item"}
    for at, row in enumerate(ids):
        alone = {
            input_name: table[at : at + 1] if input_name in per_item else table
            for input_name, table in inputs.items()
        }
        if trouble := _trouble(served, alone, 1):
            place = ", ".join(f"{key} {id_}" for key, id_ in zip(keys, row, strict=True))
            return f"table {name}, {place}: {trouble}"
    return ""


def _by_torch(served: Served, query: Query) -> _Scored:
    inputs, items = served.inputs(query), len(query.item_ids)
    try:
        expected = served.by_torch(inputs)
    except Exception as error:  # a model may raise anything
        cause = str(error)[:LONGEST_CAUSE]
        raise _TorchError(f"{_named(query)}: torch can't score it: {cause}") from error
    if len(expected) != items:
        raise PublishError(
            f"the model gives {len(expected)} scores for {items} items; it must give one an item"
        )
    if not (expected.min() >= 0 and expected.max() <= 1):
        raise PublishError(_outside(query, expected))
    return _Scored(query, inputs, expected)


def _outside(query: Query, expected: FloatArray) -> str:
    if np.isnan(expected).any():
        return f"{_named(query)}: the model gives NaN; {NAN_HELP}"
    low, high = float(expected.min()), float(expected.max())
    told = f"the model gives scores outside [0, 1], such as {low:.4g} and {high:.4g}; "
    if max(-low, high) <= LARGEST_LOGIT:
        told += "where they are logits, publish it with --activation sigmoid; else "
    return told + MAP_HELP


def _difference(served: Served, scored: _Scored) -> float:
    """The largest between torch and ONNX. Raises PublishError where it is too large, or NaN."""
    expected = scored.expected
    try:
        scores = served.engine.score(scored.inputs)
    except ScoringError as error:
        cause = str(error.__cause__ or error)[:LONGEST_CAUSE]
        raise PublishError(f"ONNX Runtime can't score as torch does: {cause}") from error
    apart = np.abs(scores - expected)
    beyond = apart - _allowed(expected)
    worst = int(np.argmax(np.where(np.isnan(beyond), np.inf, beyond)))
    if not beyond[worst] <= 0:
        item = scored.query.item_ids[worst]
        help_ = f"; {NAN_HELP}" if np.isnan(scores[worst]) else ""
        raise PublishError(
            f"{_named(scored.query)}, item {item}: torch gives {expected[worst]:.6g}, ONNX Runtime "
            f"{scores[worst]:.6g}; {_allowed(expected)[worst]:.0e} apart is allowed{help_}"
        )
    return float(apart.max())


def _named(query: Query) -> str:
    user = "an unknown user" if query.user_id == UNKNOWN_ID else f"user {query.user_id}"
    return f"{user} with {len(query.item_ids)} items"


def _check_distinct(served: Served, scored: Sequence[_Scored]) -> None:
    """Raises PublishError where items that the model tells apart get equal scores."""
    scores = sum(len(np.unique(each.expected)) for each in scored)
    if served.logits is not None:
        logits = sum(len(np.unique(served.logits(each.inputs))) for each in scored)
        if not logits - scores <= MOST_MERGED_SHARE * logits:
            raise PublishError(
                f"--activation sigmoid leaves {scores:,} distinct scores of {logits:,}: the "
                f"model's outputs are so large that they become 0 or 1; {MAP_HELP}"
            )
    rows = sum(_distinct_rows(each) for each in scored)
    ends = sum(int(np.isin(each.expected, (0.0, 1.0)).sum()) for each in scored)
    total = sum(len(each.expected) for each in scored)
    if rows > len(scored) and ends >= MOST_AT_THE_ENDS * total:
        raise PublishError(
            f"{ends:,} of {total:,} scores are 0 or 1 to the last digit, so nothing is ranked: "
            f"what the model squashes is too large; {MAP_HELP}"
        )


def _distinct_rows(scored: _Scored) -> int:
    return max(len(np.unique(table, axis=0)) for table in scored.inputs.values())


def _batches(served: Served, scored: Sequence[_Scored]) -> bool:
    """Whether an item's score is its own: alone, and in the largest run that there can be, with
    items of all those requests, it is what it was in its request."""
    if any(input_.per == "request" for input_ in served.spec.inputs):
        return False
    names = scored[0].inputs
    rows = {name: np.concatenate([each.inputs[name] for each in scored]) for name in names}
    scores = np.concatenate([each.expected for each in scored])
    most = MAX_BATCH_ITEMS + MAX_ITEMS
    crowd = {name: np.resize(table, (most, table.shape[1])) for name, table in rows.items()}
    singles = [
        {name: table[at : at + 1] for name, table in rows.items()} for at in range(len(scores))
    ]
    try:
        alone = np.concatenate([served.engine.score(single) for single in singles])
        crowded = served.engine.score(crowd)
    except ScoringError:
        return False
    return same(alone, scores) and same(crowded, np.resize(scores, most))


def same(scores: FloatArray, expected: FloatArray) -> bool:
    """Small scores are compared more closely: they rank too. NaN is the same as nothing."""
    allowed = np.minimum(MOST_APART, MOST_APART_SHARE * expected)
    return bool((np.abs(scores - expected) <= allowed).all())
