"""Scores each row of the tables once: a category beyond the model's vocabulary fails only where it
is read."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.golden import MONDAY_S, UNKNOWN_ID
from feedmodel.publish.scorers import Inputs, Scorers, quoted
from feedmodel.publish.tables import TABLES, FeatureTable, FeatureTables, TableName
from feedmodel.publish.tolerance import Scale, are_near
from feedmodel.threads import one_thread
from feedrank.domain import DEFAULT_MAX_ITEMS, FloatArray, IntArray, Query
from feedrank.errors import ScoringError
from feedrank.features.matrix import days_since, number_of
from feedrank.features.spec import Block, Feature, FeatureSpec, Input, Source

ROWS_AT_ONCE = 250  # where an item's score doesn't depend on the others: few enough for a cache
MAX_ALONE = 20_000  # users or pairs that are scored where each needs a request of its own
PROGRESS_ROWS = 50_000
MULTIPLIER, SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)  # odd, and near the golden ratio
VOCABULARY = "is a value beyond the model's vocabulary?"
NAN_HELP = (
    "a mean or an attention over nothing, such as an empty history, is the usual cause: let the "
    "model give such a row a value of its own"
)

Batch = tuple[IntArray, Inputs]  # ids of a table's rows, and the model's inputs for them
Cells = Callable[[slice, float], NDArray[Any]]
Step = Callable[[str], None]


@one_thread()
def check_rows(
    scorers: Scorers,
    tables: FeatureTables,
    step: Step,
    scale: Scale | None = None,
    *,
    batches: bool,
) -> dict[str, str]:
    """Compare ONNX Runtime with torch on each user, each item, and up to MAX_ALONE different pairs;
    of users whose input is one row a request on up to MAX_ALONE and those with the smallest and
    the largest values. `batches` tells whether scores are the same in any batch.

    Gives in words what was left out. Raises PublishError that names the first row without a score
    or with a different one.
    """
    at_once = ROWS_AT_ONCE if batches else DEFAULT_MAX_ITEMS
    notes: dict[str, str] = {}
    for name, batches_of in BATCHES.items():
        rows, count, milestone = len(tables[name].ids), 0, 0
        for ids, inputs in batches_of(scorers, tables, at_once):
            if count >= milestone:
                step(f"scoring the rows of {name}: {count:,} of {rows:,}")
                milestone += PROGRESS_ROWS
            if problem := _problem(scorers, inputs, len(ids), scale):
                raise PublishError(_first_bad_row(scorers, name, ids, inputs, scale) or problem)
            count += len(ids)
        if name == "users" and count < rows:
            notes["users scored"] = f"{count:,} of {rows:,}, each in a request of its own"
    return notes


def _item_batches(scorers: Scorers, tables: FeatureTables, at_once: int) -> Iterator[Batch]:
    ids = tables["items"].ids
    for start in range(0, len(ids), at_once):
        part = ids[start : start + at_once]
        yield part, scorers.inputs(Query(UNKNOWN_ID, part[:, 0].tolist(), {}, MONDAY_S))


def _user_batches(scorers: Scorers, tables: FeatureTables, at_once: int) -> Iterator[Batch]:
    """With the first item. A request has one user, so batches of several users are laid out here;
    where an input is one row a request, users are scored one by one."""
    table = tables["users"]
    item = tables["items"].ids[:1, 0].tolist() or [UNKNOWN_ID]
    if len(scorers.per_item) < len(scorers.spec.inputs):
        for row in table.ids[_telling_rows(table)]:
            yield row[np.newaxis], scorers.inputs(Query(int(row[0]), item, {}, MONDAY_S))
        return
    yield from _varied(scorers, "user", table, Query(UNKNOWN_ID, item, {}, MONDAY_S), at_once)


def _telling_rows(table: FeatureTable) -> IntArray:
    """All of them, or MAX_ALONE spread over the table, and each column's smallest and largest
    value: those are the categories that a model may lack, and the lists that are empty."""
    rows = len(table.ids)
    if rows <= MAX_ALONE:
        return np.arange(rows)
    extremes = [
        at
        for block in _blocks(table)
        for column in block.T
        for at in (column.argmin(), column.argmax())
    ]
    spread = np.linspace(0, rows - 1, MAX_ALONE).astype(np.int64)
    return np.unique(np.concatenate([spread, np.array(extremes, np.int64)]))


def _pair_batches(scorers: Scorers, tables: FeatureTables, at_once: int) -> Iterator[Batch]:
    """Each pair with its own user and item. Pairs are many and mostly counts, so of equal rows one
    is scored."""
    pairs = tables["pairs"]
    if not len(pairs.ids):
        return
    _, first = np.unique(_mixed(_blocks(pairs)), return_index=True)
    chosen = first[np.linspace(0, len(first) - 1, min(len(first), MAX_ALONE)).astype(int)]
    together = at_once if len(scorers.per_item) == len(scorers.spec.inputs) else 1
    for start in range(0, len(chosen), together):
        ids = pairs.ids[chosen[start : start + together]]
        inputs = [scorers.inputs(Query(u, [i], {}, MONDAY_S)) for u, i in ids.tolist()]
        yield ids, {name: np.concatenate([each[name] for each in inputs]) for name in inputs[0]}


def _blocks(table: FeatureTable) -> list[NDArray[Any]]:
    blocks = (table.values, table.integers, table.times, table.halves)
    return [block for block in blocks if block.shape[1]]


def _mixed(blocks: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """(rows,) a hash of each row, which sorts faster than the row. Of two that share one, which is
    most unlikely, one isn't scored."""
    mixed = np.zeros(len(blocks[0]), np.uint64)
    for block in blocks:
        for column in block.T:
            bits = np.ascontiguousarray(column).view(f"u{column.itemsize}").astype(np.uint64)
            mixed = (mixed ^ bits) * MULTIPLIER
            mixed ^= mixed >> SHIFT
    return mixed


def _varied(
    scorers: Scorers, source: Source, table: FeatureTable, base: Query, at_once: int
) -> Iterator[Batch]:
    """The one row of `base`, repeated, with each row of the table in its source's columns."""
    one = scorers.inputs(base)
    places = [
        (input_, list(_columns(scorers.spec, input_, source, table)))
        for input_ in scorers.spec.inputs
    ]
    for start in range(0, len(table.ids), at_once):
        part = slice(start, start + at_once)
        inputs = {name: np.repeat(row, len(table.ids[part]), axis=0) for name, row in one.items()}
        for input_, columns in places:
            flat = inputs[input_.name].reshape(-1, input_.width)
            for to, cells in columns:
                flat[:, to] = cells(part, base.time_s)
        yield table.ids[part], inputs


def _columns(
    spec: FeatureSpec, input_: Input, source: Source, table: FeatureTable
) -> Iterator[tuple[slice, Cells]]:
    """Where each feature of the source's stands in the input, and what reads its cells."""
    starts = {
        (block, feature.name): start
        for block in get_args(Block)
        for feature, start in spec.starts(source, block)
    }
    for feature, to in input_.starts:
        if feature.source == source:
            block = input_.block_of(feature)
            start = starts[block, feature.name]
            stored = getattr(table, block)[:, start : start + feature.width]
            yield slice(to, to + feature.width), partial(_cells, feature, stored)


def _cells(feature: Feature, stored: NDArray[Any], rows: slice, time_s: float) -> NDArray[Any]:
    """(rows, width)"""
    if feature.store == "float16":
        return stored[rows].astype(np.float16)
    if not feature.is_time:
        return stored[rows]
    days: NDArray[Any] = days_since(stored[rows], time_s, number_of(feature))
    return days


BATCHES: dict[TableName, Callable[[Scorers, FeatureTables, int], Iterator[Batch]]] = {
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
