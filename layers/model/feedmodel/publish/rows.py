"""Scores each row of the tables once: a category beyond the model's vocabulary fails only where it
is read."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.golden import MONDAY_S, UNKNOWN_ID
from feedmodel.publish.scorers import Inputs, Scorers, quoted
from feedmodel.publish.tables import TABLES, FeatureTable, FeatureTables, TableName
from feedmodel.publish.tolerance import Scale, are_near
from feedrank.domain import DEFAULT_MAX_ITEMS, FloatArray, IntArray, Query
from feedrank.errors import ScoringError
from feedrank.features.matrix import days_since, number_of
from feedrank.features.spec import Block, Feature, FeatureSpec, Input, Source

MAX_PAIRS = 20_000  # different pairs that are scored: each needs its own user and item
PROGRESS_ROWS = 50_000
VOCABULARY = "is a value beyond the model's vocabulary?"
NAN_HELP = (
    "a mean or an attention over nothing, such as an empty history, is the usual cause: let the "
    "model give such a row a value of its own"
)

Batch = tuple[IntArray, Inputs]  # ids of a table's rows, and the model's inputs for them
Cells = Callable[[slice, float], NDArray[Any]]
Step = Callable[[str], None]


def check_rows(
    scorers: Scorers, tables: FeatureTables, step: Step, scale: Scale | None = None
) -> None:
    """Compare ONNX Runtime with torch on each user, each item, and up to MAX_PAIRS pairs.

    Raises PublishError that names the first row without a score or with a different one.
    """
    for name, batches_of in BATCHES.items():
        rows, count = len(tables[name].ids), 0
        for ids, inputs in batches_of(scorers, tables):
            if count % PROGRESS_ROWS == 0:
                step(f"scoring the rows of {name}: {count:,} of {rows:,}")
            if problem := _problem(scorers, inputs, len(ids), scale):
                raise PublishError(_first_bad_row(scorers, name, ids, inputs, scale) or problem)
            count += len(ids)


def _item_batches(scorers: Scorers, tables: FeatureTables) -> Iterator[Batch]:
    ids = tables["items"].ids
    for start in range(0, len(ids), DEFAULT_MAX_ITEMS):
        part = ids[start : start + DEFAULT_MAX_ITEMS]
        yield part, scorers.inputs(Query(UNKNOWN_ID, part[:, 0].tolist(), {}, MONDAY_S))


def _user_batches(scorers: Scorers, tables: FeatureTables) -> Iterator[Batch]:
    """With the first item. A request has one user, so batches of several users are laid out here;
    where an input is one row a request, users are scored one by one."""
    table = tables["users"]
    item = tables["items"].ids[:1, 0].tolist() or [UNKNOWN_ID]
    if len(scorers.per_item) < len(scorers.spec.inputs):
        for row in table.ids:
            yield row[np.newaxis], scorers.inputs(Query(int(row[0]), item, {}, MONDAY_S))
        return
    yield from _varied(scorers, "user", table, Query(UNKNOWN_ID, item, {}, MONDAY_S))


def _pair_batches(scorers: Scorers, tables: FeatureTables) -> Iterator[Batch]:
    """Each pair with its own user and item. Pairs are many and mostly counts, so of equal rows one
    is scored."""
    pairs = tables["pairs"]
    if not len(pairs.ids):
        return
    blocks = [b for b in (pairs.values, pairs.integers, pairs.times) if b.shape[1]]
    rows = blocks[0].ravel() if len(blocks) == blocks[0].shape[1] == 1 else np.hstack(blocks)
    _, first = np.unique(rows, axis=0, return_index=True)
    for at in first[np.linspace(0, len(first) - 1, min(len(first), MAX_PAIRS)).astype(int)]:
        user, item = pairs.ids[at]
        query = Query(int(user), [int(item)], {}, MONDAY_S)
        yield pairs.ids[at : at + 1], scorers.inputs(query)


def _varied(scorers: Scorers, source: Source, table: FeatureTable, base: Query) -> Iterator[Batch]:
    """The one row of `base`, repeated, with each row of the table in its source's columns."""
    one = scorers.inputs(base)
    for start in range(0, len(table.ids), DEFAULT_MAX_ITEMS):
        part = slice(start, start + DEFAULT_MAX_ITEMS)
        inputs = {name: np.repeat(row, len(table.ids[part]), axis=0) for name, row in one.items()}
        for input_ in scorers.spec.inputs:
            flat = inputs[input_.name].reshape(-1, input_.width)
            for to, cells in _columns(scorers.spec, input_, source, table):
                flat[:, to] = cells(part, base.time_s)
        yield table.ids[part], inputs


def _columns(
    spec: FeatureSpec, input_: Input, source: Source, table: FeatureTable
) -> Iterator[tuple[slice, Cells]]:
    """Where each feature of the source's stands in the input, and what reads its cells."""
    starts: dict[tuple[Block, str], int] = {}
    for block in get_args(Block):
        column = 0
        for feature in spec.block(source, block):
            starts[block, feature.name] = column
            column += feature.width
    to = 0
    for feature in input_.features:
        if feature.source == source:
            block = input_.block_of(feature)
            start = starts[block, feature.name]
            stored = getattr(table, block)[:, start : start + feature.width]
            yield slice(to, to + feature.width), partial(_cells, feature, stored)
        to += feature.width


def _cells(feature: Feature, stored: NDArray[Any], rows: slice, time_s: float) -> NDArray[Any]:
    """(rows, width)"""
    if not feature.is_time:
        return stored[rows]
    days: NDArray[Any] = days_since(stored[rows], time_s, number_of(feature))
    return days


BATCHES: dict[TableName, Callable[[Scorers, FeatureTables], Iterator[Batch]]] = {
    "items": _item_batches,
    "users": _user_batches,
    "pairs": _pair_batches,
}


def _problem(scorers: Scorers, inputs: Inputs, items: int, scale: Scale | None) -> str:
    """What is wrong with the scores of these rows; empty if nothing is."""
    try:
        scores = scorers.onnx.score(inputs)
    except ScoringError as error:
        return f"ONNX Runtime can't score it; {VOCABULARY} {quoted(error)}"
    if len(scores) != items:
        return f"the model gives {len(scores)} scores for {items} items"
    if np.isnan(scores).any():
        return f"its score is NaN; {NAN_HELP}"
    if not in_range(scores, scorers.spec):
        return "its score is outside [0, 1]" if scorers.spec.range else "its score is not finite"
    return _difference_from_torch(scorers, inputs, scores, scale)


def in_range(scores: FloatArray, spec: FeatureSpec) -> bool:
    """NaN is in no range."""
    if spec.range is None:
        return bool(np.isfinite(scores).all())
    low, high = spec.range
    return bool(scores.min() >= low and scores.max() <= high)


def _difference_from_torch(
    scorers: Scorers, inputs: Inputs, scores: FloatArray, scale: Scale | None
) -> str:
    try:
        expected = scorers.torch(inputs)
    except ScoringError as error:
        return f"torch can't score it; {VOCABULARY} {quoted(error)}"
    if not are_near(scores, expected, scale).all():
        return f"torch gives {expected[0]:.6g}, ONNX Runtime {scores[0]:.6g}"
    return ""


def _first_bad_row(
    scorers: Scorers, name: TableName, ids: IntArray, inputs: Inputs, scale: Scale | None
) -> str:
    """Empty where each row has its score when it is alone."""
    _, keys = TABLES[name]
    for at, row in enumerate(ids):
        alone = {
            input_: matrix[at : at + 1] if input_ in scorers.per_item else matrix
            for input_, matrix in inputs.items()
        }
        if problem := _problem(scorers, alone, 1, scale):
            place = ", ".join(f"{key} {id_}" for key, id_ in zip(keys, row, strict=True))
            return f"table {name}, {place}: {problem}"
    return ""
