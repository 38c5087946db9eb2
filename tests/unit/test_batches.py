"""Whether the items of several requests may share a batch."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedmodel.publish.batching import can_batch
from feedmodel.publish.scorers import ScoredQuery
from feedrank.domain import FloatArray, Query
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

SPEC = parse_spec({"inputs": [{"name": "x", "features": [{"name": "p", "source": "item"}]}]})
ANY_RANGE = replace(SPEC, range=None)
ITEMS = np.linspace(1, 2, 7, dtype=np.float32)[:, np.newaxis]
TINY = np.float32(3e-7)  # ONNX Runtime's sigmoid is 1e-7 from torch's there


def batches(
    score: Callable[[FloatArray], FloatArray], torch_apart: float = 0.0, spec: FeatureSpec = SPEC
) -> bool:
    samples = []
    for inputs in (ITEMS[:2], ITEMS):
        expected = score(inputs) + np.float32(torch_apart)
        samples.append(ScoredQuery(Query(1, [1] * len(inputs), {}, 0.0), {"x": inputs}, expected))

    def of_inputs(inputs: dict[str, NDArray[Any]]) -> FloatArray:
        return score(inputs["x"])

    engine = SimpleNamespace(score=of_inputs)
    scorers: Any = SimpleNamespace(onnx=engine, spec=spec, per_item={"x"})
    return can_batch(scorers, samples)


def by_item(x: FloatArray) -> FloatArray:
    return x[:, 0] * TINY


def by_list(x: FloatArray) -> FloatArray:
    scores: FloatArray = (x[:, 0] - x[:, 0].mean()) * TINY
    return scores


def test_tiny_scores_batch_however_far_torch_is() -> None:
    assert batches(by_item, torch_apart=5e-8)


def test_a_score_that_depends_on_the_list_does_not_batch_however_small() -> None:
    assert not batches(by_list)


def test_scores_of_any_range_batch_by_how_far_apart_they_lie() -> None:
    for size in (TINY, np.float32(1e-9), np.float32(1e9)):
        assert batches(lambda x, size=size: by_item(x) * size, spec=ANY_RANGE)
        assert not batches(lambda x, size=size: by_list(x) * size, spec=ANY_RANGE)
