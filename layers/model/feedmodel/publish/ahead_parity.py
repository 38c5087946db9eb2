"""Proves that a bundle with item vectors scores as the whole model does, which is the truth."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from feedmodel.errors import PublishError
from feedmodel.publish.batching import can_batch
from feedmodel.publish.golden import MONDAY_S, UNKNOWN_ID, parity_queries
from feedmodel.publish.parity import Parity, named
from feedmodel.publish.scorers import ScoredQuery, Scorers, quoted
from feedmodel.publish.tables import FeatureTables
from feedmodel.publish.tolerance import Scale, allowed_difference, scale_of
from feedrank.domain import DEFAULT_MAX_ITEMS, Query
from feedrank.errors import ScoringError


def compare_ahead(whole: Scorers, ahead: Scorers, tables: FeatureTables, parity: Parity) -> Parity:
    """Each parity request, and each item, by both engines from the stored vectors. `parity` is that
    of the whole model, whose golden scores stay.

    Raises PublishError that names the request.
    """
    queries = parity_queries(whole.spec, tables)
    samples = [
        ScoredQuery(query, ahead.inputs(query), whole.torch(whole.inputs(query)))
        for query in (*queries, *_item_queries(tables))
    ]
    scale = scale_of(np.concatenate([each.expected for each in samples]), whole.spec.range)
    apart = max(_difference(ahead, sample, scale) for sample in samples)
    return replace(
        parity,
        apart=max(apart, parity.apart),
        rows=sum(len(sample.expected) for sample in samples),
        batches=can_batch(ahead, samples[: len(queries)]),
    )


def _item_queries(tables: FeatureTables) -> Iterator[Query]:
    """All items, for one user after the other."""
    users = tables["users"].ids[:, 0].tolist() or [UNKNOWN_ID]
    items = tables["items"].ids[:, 0]
    for number, start in enumerate(range(0, len(items), DEFAULT_MAX_ITEMS)):
        part = items[start : start + DEFAULT_MAX_ITEMS].tolist()
        yield Query(users[number % len(users)], part, {}, MONDAY_S)


def _difference(ahead: Scorers, sample: ScoredQuery, scale: Scale | None) -> float:
    try:
        scores: Sequence[np.ndarray] = [ahead.onnx.score(sample.inputs), ahead.torch(sample.inputs)]
    except ScoringError as error:
        raise PublishError(
            f"{named(sample.query)}: can't be scored from item vectors: {quoted(error)}"
        ) from error
    apart = np.abs(np.stack(scores) - sample.expected)
    if not (apart <= allowed_difference(sample.expected, scale)).all():
        raise PublishError(
            f"{named(sample.query)}: scores from item vectors are up to {apart.max():.1e} from "
            "those of the whole model; publish it without --precompute"
        )
    return float(apart.max())
