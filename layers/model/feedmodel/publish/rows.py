"""Scores each row of the tables once: a category beyond the model's vocabulary fails only where it
is read."""

from collections.abc import Callable, Iterator

import numpy as np

from feedmodel.errors import PublishError
from feedmodel.publish.golden import MONDAY_S, UNKNOWN_ID
from feedmodel.publish.scorers import Inputs, Scorers, quoted
from feedmodel.publish.tables import TABLES, FeatureTable, FeatureTables, TableName
from feedmodel.publish.tolerance import are_near
from feedrank.domain import MAX_ITEMS, FloatArray, IntArray, Query
from feedrank.errors import ScoringError
from feedrank.features.spec import FeatureSpec, Source

MAX_PAIRS = 20_000  # different pairs that are scored: each needs its own user and item
PROGRESS_ROWS = 50_000
VOCABULARY = "is a value beyond the model's vocabulary?"
NAN_HELP = (
    "a mean or an attention over nothing, such as an empty history, is the usual cause: let the "
    "model give such a row a value of its own"
)

Batch = tuple[IntArray, Inputs]  # ids of a table's rows, and the model's inputs for them
Step = Callable[[str], None]


def check_rows(scorers: Scorers, tables: FeatureTables, step: Step) -> None:
    """Compare ONNX Runtime with torch on each user, each item, and up to MAX_PAIRS pairs.

    Raises PublishError that names the first row without a score or with a different one.
    """
    for name, batches_of in BATCHES.items():
        rows, done = len(tables[name].ids), 0
        for ids, inputs in batches_of(scorers, tables):
            if done % PROGRESS_ROWS == 0:
                step(f"scoring the rows of {name}: {done:,} of {rows:,}")
            if problem := _problem(scorers, inputs, len(ids)):
                raise PublishError(_first_bad_row(scorers, name, ids, inputs) or problem)
            done += len(ids)


def _item_batches(scorers: Scorers, tables: FeatureTables) -> Iterator[Batch]:
    ids = tables["items"].ids
    for start in range(0, len(ids), MAX_ITEMS):
        part = ids[start : start + MAX_ITEMS]
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
    base = scorers.inputs(Query(UNKNOWN_ID, item, {}, MONDAY_S))
    yield from _varied(scorers.spec, "user", table, base)


def _pair_batches(scorers: Scorers, tables: FeatureTables) -> Iterator[Batch]:
    """Each pair with its own user and item. Pairs are many and mostly counts, so of equal rows one
    is scored."""
    pairs = tables["pairs"]
    if not len(pairs.ids):
        return
    rows = pairs.values.ravel() if pairs.values.shape[1] == 1 else pairs.values
    _, first = np.unique(rows, axis=0, return_index=True)
    for at in first[np.linspace(0, len(first) - 1, min(len(first), MAX_PAIRS)).astype(int)]:
        user, item = pairs.ids[at]
        query = Query(int(user), [int(item)], {}, MONDAY_S)
        yield pairs.ids[at : at + 1], scorers.inputs(query)


def _varied(
    spec: FeatureSpec, source: Source, table: FeatureTable, base: Inputs
) -> Iterator[Batch]:
    """The one row of `base`, repeated, with each row of the table in its source's columns."""
    columns = [feature.name for feature in spec.columns(source)]
    places = [
        (input_.name, at, columns.index(feature.name))
        for input_ in spec.inputs
        for at, feature in enumerate(input_.features)
        if feature.source == source
    ]
    for start in range(0, len(table.ids), MAX_ITEMS):
        ids, values = table.ids[start : start + MAX_ITEMS], table.values[start : start + MAX_ITEMS]
        inputs = {name: np.repeat(row, len(ids), axis=0) for name, row in base.items()}
        for name, at, column in places:
            inputs[name][:, at] = values[:, column]
        yield ids, inputs


BATCHES: dict[TableName, Callable[[Scorers, FeatureTables], Iterator[Batch]]] = {
    "items": _item_batches,
    "users": _user_batches,
    "pairs": _pair_batches,
}


def _problem(scorers: Scorers, inputs: Inputs, items: int) -> str:
    """What is wrong with the scores of these rows; empty if nothing is."""
    try:
        scores = scorers.onnx.score(inputs)
    except ScoringError as error:
        return f"ONNX Runtime can't score it; {VOCABULARY} {quoted(error)}"
    if len(scores) != items:
        return f"the model gives {len(scores)} scores for {items} items"
    if np.isnan(scores).any():
        return f"its score is NaN; {NAN_HELP}"
    if not (scores.min() >= 0 and scores.max() <= 1):
        return "its score is outside [0, 1]"
    return _difference_from_torch(scorers, inputs, scores)


def _difference_from_torch(scorers: Scorers, inputs: Inputs, scores: FloatArray) -> str:
    try:
        expected = scorers.torch(inputs)
    except ScoringError as error:
        return f"torch can't score it; {VOCABULARY} {quoted(error)}"
    if not are_near(scores, expected).all():
        return f"torch gives {expected[0]:.6g}, ONNX Runtime {scores[0]:.6g}"
    return ""


def _first_bad_row(scorers: Scorers, name: TableName, ids: IntArray, inputs: Inputs) -> str:
    """Empty where each row has its score when it is alone."""
    _, keys = TABLES[name]
    for at, row in enumerate(ids):
        alone = {
            input_: matrix[at : at + 1] if input_ in scorers.per_item else matrix
            for input_, matrix in inputs.items()
        }
        if problem := _problem(scorers, alone, 1):
            place = ", ".join(f"{key} {id_}" for key, id_ in zip(keys, row, strict=True))
            return f"table {name}, {place}: {problem}"
    return ""
