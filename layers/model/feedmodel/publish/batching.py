"""Whether serving may score the items of several requests in one batch."""

from collections.abc import Sequence

import numpy as np

from feedmodel.publish.scorers import ScoredQuery, Scorers
from feedmodel.publish.tolerance import same, scale_of
from feedrank.domain import MAX_BATCH_ITEMS, MAX_ITEMS
from feedrank.errors import ScoringError


def can_batch(scorers: Scorers, samples: Sequence[ScoredQuery]) -> bool:
    """Whether each item's score is independent of the others: alone, and in the largest batch that
    serving builds, filled with items of all samples, it is what it was in its own request."""
    if len(scorers.per_item) < len(scorers.spec.inputs):
        return False  # an input that is one row a request ties the items together
    rows = {
        name: np.concatenate([sample.inputs[name] for sample in samples])
        for name in samples[0].inputs
    }
    size = MAX_BATCH_ITEMS + MAX_ITEMS
    full = {name: np.resize(tensor, (size, *tensor.shape[1:])) for name, tensor in rows.items()}
    try:
        # By the same engine: torch's small scores are further away than a batch may move them.
        expected = np.concatenate([scorers.onnx.score(sample.inputs) for sample in samples])
        singles = [
            {name: matrix[at : at + 1] for name, matrix in rows.items()}
            for at in range(len(expected))
        ]
        alone = np.concatenate([scorers.onnx.score(single) for single in singles])
        batched = scorers.onnx.score(full)
    except ScoringError:
        return False
    scale = scale_of(expected, scorers.spec.range)
    return same(alone, expected, scale) and same(batched, np.resize(expected, size), scale)
