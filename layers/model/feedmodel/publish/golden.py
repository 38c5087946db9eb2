"""Golden requests: a container must score them as torch did before it serves.

They are made from the bundle's own tables and spec: known and unknown users and items, one item to
a hundred, every context key that the spec reads, hours and weekdays spread over a week. More of
them are compared when a model is published than a bundle keeps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedmodel.publish.tables import FeatureTable, FeatureTables
from feedmodel.publish.tolerance import Scale, within
from feedrank.bundle.documents import Json
from feedrank.domain import DEFAULT_MAX_ITEMS, NO_CANDIDATES, FloatArray, IntArray, Query
from feedrank.features import expressions as context
from feedrank.features.spec import Feature, FeatureSpec

SEED = 20_260_101
MONDAY_S = 1_767_571_200.0  # 2026-01-05T00:00:00Z
STEP_S = 5 * context.HOUR_S + 1_800
SIZES = (1, 2, 3, 5, 8, 10, 20, 25, 50, 75, DEFAULT_MAX_ITEMS, DEFAULT_MAX_ITEMS)  # items
KEPT_IN_BUNDLE = (0, 1, 3, 6, 8, 10, 12, 13)  # positions among `parity_queries`
UNKNOWN_ID = 2**63 - 1
UNKNOWN = "unknown"  # where ids are text
NO_SUCH_TEXT = "in no vocabulary"
EXAMPLE_LENGTH = 3  # of a list in the context


def parity_queries(spec: FeatureSpec, tables: FeatureTables) -> list[Query]:
    """About four hundred rows in fourteen requests, the same for the same tables."""
    random = np.random.default_rng(SEED)
    users, items = _drawn_from(tables["users"]), _drawn_from(tables["items"])
    examples = context_examples(spec)
    requests = [
        Query(
            user_id=UNKNOWN_ID if number == 1 else _draw_id(users, random),
            item_ids=_draw_items(items, size, random).tolist(),
            context=examples if number % 2 else {},
            time_s=MONDAY_S + number * STEP_S,
            candidates=candidate_examples(spec, size, random) if number % 3 else NO_CANDIDATES,
        )
        for number, size in enumerate(SIZES)
    ]
    requests += [_defaults_query(), _pairs_query(tables["pairs"], examples)]
    if spec.ids == "number":
        return requests
    names = {key: name for table in tables.values() for key, name in table.names.items()}
    return [_named(query, names) for query in requests]


def context_examples(spec: FeatureSpec) -> dict[str, str]:
    """A value for every context key that the spec reads; of a vocabulary its first texts."""
    examples = {}
    whole = {f.name for input_ in spec.inputs if input_.type == "int64" for f in input_.features}
    for feature in spec.columns("context"):
        parsed = context.parse(feature.expression)
        if parsed.example is None:
            continue
        key, example = parsed.example
        if parsed.is_number and feature.name in whole:
            example = "1"
        texts = spec.vocabularies.get(feature.vocabulary, ())
        if isinstance(texts, tuple) and texts:
            example = ",".join(texts[:EXAMPLE_LENGTH]) if parsed.reads == "list" else texts[0]
        examples[key] = example
    return examples


def candidate_examples(
    spec: FeatureSpec, items: int, random: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """What a caller could send of each candidate, as it is after it was read."""
    whole = {f.name for i in spec.inputs if i.type == "int64" for f in i.features}
    examples: dict[str, NDArray[Any]] = {}
    for feature in spec.columns("candidate"):
        shape = (items, feature.size) if feature.size else (items,)
        if feature.vocabulary or feature.name in whole:
            size = _vocabulary_size(spec, feature) if feature.vocabulary else 1
            examples[feature.name] = random.integers(0, size + 1, shape)
        else:
            examples[feature.name] = random.random(shape).round(3)
    return examples


def _vocabulary_size(spec: FeatureSpec, feature: Feature) -> int:
    vocabulary = spec.vocabularies[feature.vocabulary]
    return vocabulary if isinstance(vocabulary, int) else len(vocabulary)


def golden_case(
    query: Query, scores: FloatArray, spec: FeatureSpec, scale: Scale | None
) -> dict[str, Any]:
    """As a caller sends it, with the scores and, where they have no range, how far from each one a
    container may be."""
    features = _as_sent(query, spec)
    allowed = {"allowed": within(scores, scale).tolist()} if scale else {}
    return (
        ({"features": features} if features else {})
        | allowed
        | {
            "user_id": query.user_id,
            "item_ids": list(query.item_ids),
            "context": dict(query.context),
            "time_s": query.time_s,
            "scores": scores.tolist(),
        }
    )


def _as_sent(query: Query, spec: FeatureSpec) -> dict[str, list[Any]]:
    """Candidate features with texts in place of their numbers in a vocabulary."""

    def texts(numbers: Json, vocabulary: tuple[str, ...]) -> Json:
        if isinstance(numbers, list):
            return [texts(number, vocabulary) for number in numbers]
        return vocabulary[numbers - 1] if numbers else NO_SUCH_TEXT

    sent = {name: values.tolist() for name, values in query.candidates.items()}
    for feature in spec.columns("candidate"):
        vocabulary = spec.vocabularies.get(feature.vocabulary)
        if isinstance(vocabulary, tuple) and feature.name in sent:
            sent[feature.name] = texts(sent[feature.name], vocabulary)
    return sent


def _drawn_from(table: FeatureTable) -> IntArray:
    """The ids that requests may have: where they are text, those whose texts are known."""
    return np.array(sorted(table.names)) if table.names else table.ids[:, 0]


def _named(query: Query, names: Mapping[int, str]) -> Query:
    """The same with texts for ids."""

    def name(key: Json) -> str:
        return names.get(key, UNKNOWN if key == UNKNOWN_ID else f"{UNKNOWN} {key}")

    return query._replace(user_id=name(query.user_id), item_ids=[*map(name, query.item_ids)])


def _defaults_query() -> Query:
    """Nothing is known: each feature but those of the time has its default."""
    return Query(UNKNOWN_ID, [UNKNOWN_ID, UNKNOWN_ID - 1], {}, MONDAY_S)


def _pairs_query(pairs: FeatureTable, examples: Mapping[str, str]) -> Query:
    """The user with the most pairs, and items of those: random requests rarely hit a pair."""
    ids = pairs.ids
    if pairs.names:
        ids = ids[np.isin(ids, [*pairs.names]).all(axis=1)]
    users, counts = np.unique(ids[:, 0], return_counts=True)
    if not len(users):
        return _defaults_query()
    user = users[counts.argmax()]
    items = ids[ids[:, 0] == user, 1][: DEFAULT_MAX_ITEMS // 2].tolist()
    return Query(int(user), items, examples, MONDAY_S + context.DAY_S)


def _draw_id(ids: IntArray, random: np.random.Generator) -> int:
    return int(random.choice(ids)) if len(ids) else UNKNOWN_ID


def _draw_items(ids: IntArray, size: int, random: np.random.Generator) -> IntArray:
    """Known items, and one unknown where there is more than one."""
    if not len(ids):
        return random.integers(0, UNKNOWN_ID, size)
    items = random.choice(ids, size)
    if size > 1:
        items[size // 2] = UNKNOWN_ID
    return items
