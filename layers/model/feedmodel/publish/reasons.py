"""Why a bundle's scores are not the team's: what can be seen of it in the rows that differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feedmodel.publish.comparison import Comparison, FeaturePlace, OutputsScorer, evenly, places_of
from feedmodel.publish.past_requests import REQUEST, PastRequest, columns_read
from feedmodel.publish.single_changes import single_change
from feedrank.domain import MAX_ITEMS, BoolArray
from feedrank.errors import ScoringError
from feedrank.features.spec import PROBABILITY, Feature, Source

SCORE = "score"
OUTPUT_REQUESTS = 20
REQUESTS, ROWS = 1_000, 50_000  # that are looked at, about
OVERLAP = 0.9  # of the rows that differ and of those that have something in common
OVERLAP_OF_LISTS = 0.6  # a list of just as many values as are kept differs from no longer one
SHARE = 0.5  # of the difference that one thing has to explain
MOST_VALUES = 0.5  # of a feature, for each id: with more it tells ids apart, and nothing else
SLACK = 0.02  # of that share, for which the simpler thing is taken
MAX_LOGIT = 80.0
SMALLEST = 1e-7  # a probability, for its logit

Key = NDArray[Any]  # (rows,); rows of one value are one group


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some requests, row by row. `cells` are (rows, the feature's columns)."""

    rows: NDArray[np.int64]  # positions in the table
    cells: list[tuple[FeaturePlace, NDArray[Any]]]
    unknown_user: BoolArray
    unknown_item: BoolArray


def reasons(comparison: Comparison) -> Iterator[str]:
    """A line each."""
    yield from _columns_left_out(comparison)
    yield from _lists_torn_apart(comparison)
    yield from _rows_that_contradict(comparison)
    if change := (
        single_change(comparison) or _swapped_outputs(comparison) or _other_scores(comparison)
    ):
        yield change
        return
    sample = _sample(comparison)
    if shared := _in_common(comparison, sample):
        yield shared
    elif cause := _depends_on(comparison, sample):
        yield cause


def _columns_left_out(comparison: Comparison) -> Iterator[str]:
    read = columns_read(comparison.scorer.spec)
    if absent := [name for name in read if name not in comparison.table]:
        yield (
            f"the file has no column {', '.join(absent)}, which the model reads: each row was "
            "scored with the default"
        )


def _rows_that_contradict(comparison: Comparison) -> Iterator[str]:
    """The same item in the same request can't have two scores."""
    rows = comparison.table.drop(columns=SCORE).astype(str)
    lowest, highest = (
        comparison.table[SCORE].groupby([rows[name] for name in rows]).transform(end).to_numpy()
        for end in ("min", "max")
    )
    if count := int((~comparison.near(lowest, highest)).sum()):
        yield f"{count:,} rows stand in the file more than once, with different scores"


def _swapped_outputs(comparison: Comparison) -> str | None:
    """Two outputs with each other's weight."""
    scorer, spec = comparison.scorer, comparison.scorer.spec
    if spec.score or len(spec.outputs) <= 1 or not isinstance(scorer, OutputsScorer):
        return None
    requests = evenly(comparison.requests, OUTPUT_REQUESTS)
    rows = np.concatenate([request.rows for request in requests])
    outputs = np.concatenate([scorer.outputs(scorer.inputs(each.query)) for each in requests])
    for one, other in combinations(range(len(spec.outputs)), 2):
        weights = np.array([spec.outputs[name] for name in spec.output_names])
        weights[[one, other]] = weights[[other, one]]
        if comparison.near(outputs @ weights, comparison.expected[rows]).all():
            first, second = spec.output_names[one], spec.output_names[other]
            return f"they would agree if the outputs {first} and {second} had each other's weight"
    return None


def _other_scores(comparison: Comparison) -> str | None:
    """What the file has in place of the model's scores, row by row."""
    scores, expected = comparison.scores, comparison.expected
    if not np.ptp(scores) > 0:  # nor where one is NaN
        return None
    factor = float(np.median(expected) / np.median(scores)) if np.median(scores) else 1.0
    shift = float(np.median(expected - scores))
    texts = {
        f"each score of the file is {factor:.6g} times the bundle's": scores * factor,
        f"each score of the file is the bundle's plus {shift:.6g}": scores + shift,
        "the file has the logits of the bundle's scores": _logits(scores),
        "the bundle gives the logits of the file's scores": 1
        / (1 + np.exp(-np.clip(scores, -MAX_LOGIT, MAX_LOGIT))),
    }
    return next((text for text, of in texts.items() if comparison.near(of, expected).all()), None)


def _lists_torn_apart(comparison: Comparison) -> Iterator[str]:
    """Where an item's score depends on the others of its request, those have to be the same."""
    differing = [
        r for r in comparison.requests if comparison.differs[r.rows].any() and len(r.rows) > 1
    ]
    if not any(_needs_the_others(comparison, request) for request in evenly(differing, 3)):
        return
    text = "an item's score depends on the others of its request"
    if REQUEST not in comparison.table:
        yield f"{text}: give each row the {REQUEST} of what was scored together"
    elif any(len(request.rows) == MAX_ITEMS for request in comparison.requests):
        yield f"{text}, and one of more than {MAX_ITEMS:,} items was scored in parts"


def _needs_the_others(comparison: Comparison, request: PastRequest) -> bool:
    query = request.query
    first = query._replace(
        item_ids=query.item_ids[:1],
        candidates={name: values[:1] for name, values in query.candidates.items()},
    )
    try:
        alone = comparison.scorer.score(comparison.scorer.inputs(first))
    except ScoringError:
        return False
    return not bool(comparison.near(alone, comparison.scores[request.rows[:1]]).all())


def _sample(comparison: Comparison) -> _Sample:
    a_request = len(comparison.table) / len(comparison.requests)
    requests = evenly(comparison.requests, min(REQUESTS, int(ROWS / a_request) + 1))
    parts: list[list[NDArray[Any]]] = []
    unknown_users, unknown_items = [], []
    for request in requests:
        items = len(request.rows)
        inputs = comparison.scorer.inputs(request.query)
        rows = comparison.scorer.look_up(request.query)
        columns = [each.of(inputs) for each in places_of(comparison.scorer.spec)]
        parts.append([np.broadcast_to(cells, (items, cells.shape[1])) for cells in columns])
        unknown_users.append(np.full(items, rows.unknown_user))
        unknown_items.append(rows.unknown_items)
    places = places_of(comparison.scorer.spec)
    return _Sample(
        np.concatenate([request.rows for request in requests]),
        [
            (place, np.concatenate(cells))
            for place, cells in zip(places, zip(*parts, strict=True), strict=True)
        ],
        np.concatenate(unknown_users),
        np.concatenate(unknown_items),
    )


def _in_common(comparison: Comparison, sample: _Sample) -> str | None:
    """What most of the rows that differ have, and few of the others."""
    bad = comparison.differs[sample.rows]
    if bad.all():
        return None
    best, property_ = 0.0, None
    for text, has, enough in _properties(comparison, sample, bad):
        overlap = (has & bad).sum() / max((has | bad).sum(), 1)
        separation = min(overlap / enough, (1 - has[~bad].mean()) / OVERLAP)
        if separation >= 1 and separation > best:
            best, property_ = separation, text
    return property_ and f"{property_} differ, and nearly no other"


def _properties(
    comparison: Comparison, sample: _Sample, bad: BoolArray
) -> Iterator[tuple[str, BoolArray, float]]:
    """In words; which rows have it; the overlap with those that differ that is enough."""
    spec = comparison.scorer.spec
    unknown_rows: dict[Source, BoolArray] = {
        "user": sample.unknown_user,
        "item": sample.unknown_item,
    }
    for source, unknown in unknown_rows.items():
        names = ", ".join(feature.name for feature in spec.columns(source))
        yield f"rows of unknown {source}s (is a default of {names} another?)", unknown, OVERLAP
    for place, cells in sample.cells:
        if place.feature.size:
            yield from _of_lists(place.feature, cells)
        else:
            yield from _of_values(place.feature, cells[:, 0], bad)


def _of_lists(feature: Feature, cells: NDArray[Any]) -> Iterator[tuple[str, BoolArray, float]]:
    defaults = np.array(feature.default_cells)
    is_default = (cells == defaults) | (np.isnan(cells) & np.isnan(defaults))
    filled = is_default[:, 0]
    rows = f"rows whose {feature.name} has"
    longer = f"{rows} {feature.size} values or more (is its other end kept?)"
    yield longer, ~filled, OVERLAP_OF_LISTS
    yield f"{rows} fewer than {feature.size} values (is it filled in front?)", filled, OVERLAP
    yield f"{rows} no values", is_default.all(axis=1), OVERLAP


def _of_values(
    feature: Feature, cells: NDArray[Any], bad: BoolArray
) -> Iterator[tuple[str, BoolArray, float]]:
    missing = np.isnan(cells)
    if missing.any():
        yield f"rows where {feature.name} is missing", missing, OVERLAP
    values, counts = np.unique(cells[bad & ~missing], return_counts=True)
    if len(values):
        value = values[counts.argmax()]
        default = "" if value != feature.default else ", its default,"
        yield f"rows with {feature.name} {value:g}{default}", cells == value, OVERLAP


def _depends_on(comparison: Comparison, sample: _Sample) -> str | None:
    """What the difference is the same for, row by row: an item, a user, a value of a feature."""
    difference = _difference(comparison, sample)
    explained = [
        (share, len(np.unique(key)), number, text)
        for number, (text, key) in enumerate(_keys(comparison, sample))
        if (share := _share_explained(difference, key)) >= SHARE
    ]
    if not explained:
        return None
    enough = max(share for share, *_ in explained) - SLACK
    share, _, _, text = min((e for e in explained if e[0] >= enough), key=lambda e: e[1:3])
    return f"{share:.0%} of the difference is {text}"


def _difference(comparison: Comparison, sample: _Sample) -> NDArray[np.float64]:
    """Of logits where scores are probabilities: what is wrong adds up there, more or less."""
    scores, expected = comparison.scores[sample.rows], comparison.expected[sample.rows]
    if comparison.scorer.spec.range == PROBABILITY:
        scores, expected = _logits(scores), _logits(expected)
    return np.nan_to_num(scores - expected)


def _logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(scores, SMALLEST, 1 - SMALLEST)
    logits: NDArray[np.float64] = np.log(bounded / (1 - bounded))
    return logits


def _keys(comparison: Comparison, sample: _Sample) -> Iterator[tuple[str, Key]]:
    spec, table = comparison.scorer.spec, comparison.table.iloc[sample.rows]
    sources: tuple[Source, ...] = ("item", "user")
    ids = {}
    for source in sources:
        features = ", ".join(feature.name for feature in spec.columns(source))
        if features:
            codes = _codes(table[f"{source}_id"])
            ids[source] = int(codes.max()) + 1
            yield f"the {source}'s alone: compare {features}", codes
    for place, cells in sample.cells:
        feature = place.feature
        values = len(np.unique(cells[:, 0]))
        is_like_an_id = values > MOST_VALUES * ids.get(feature.source, np.inf)
        if not (feature.size or is_like_an_id):
            text = f"the same wherever {feature.name} is: compare its values"
            if feature.vocabulary:
                text += f", and the order of the vocabulary {feature.vocabulary}"
            yield text, _codes(cells[:, 0])


def _codes(values: ArrayLike) -> Key:
    _, codes = np.unique(np.asarray(values), return_inverse=True)
    return codes


def _share_explained(difference: NDArray[np.float64], key: Key) -> float:
    """Of the sum of squares by the mean of each group, as far as it isn't by the number of groups
    (an adjusted R²)."""
    total, groups = float((difference**2).sum()), int(key.max()) + 1
    if not 1 < groups < len(key) or not total:
        return 0.0
    counts = np.bincount(key)
    means = np.bincount(key, weights=difference) / counts
    residual = float(((difference - means[key]) ** 2).sum())
    return 1 - (residual / (len(key) - groups)) / (total / len(key))
