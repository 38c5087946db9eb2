"""A request that is past its deadline costs no inference, where one would be made inline too."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fakes
from feedrank.domain import FloatArray
from feedrank.errors import DeadlineExceededError
from feedrank.model.load import Pace
from feedrank.ranking.batching import BatchingScorer
from feedrank.ranking.scorer import InlineScorer, Scorer


class CountingEngine(fakes.PriceEngine):
    """Can be stopped, as ONNX Runtime can, and counts its inferences."""

    stopper = fakes.Stopper

    def __init__(self) -> None:
        self.inferences = 0

    def score(self, inputs: Mapping[str, FloatArray], stopper: Any = None) -> FloatArray:
        self.inferences += 1
        return super().score(inputs)


@pytest.mark.parametrize("scorer", [InlineScorer(), BatchingScorer()], ids=["inline", "batching"])
@pytest.mark.parametrize("budget_s", [-1.0, 30.0])
def test_a_brief_model_is_not_run_for_a_late_request(scorer: Scorer, budget_s: float) -> None:
    engine = CountingEngine()
    model = replace(fakes.model(engine), pace=Pace(1e-9, 1e-9))
    query = fakes.query()
    rows = asyncio.run(model.features.fetch(query, math.inf))
    if budget_s < 0:
        with pytest.raises(DeadlineExceededError):
            asyncio.run(scorer.score(model, query, rows, fakes.call(budget_s)))
        assert engine.inferences == 0
    else:
        scores = asyncio.run(scorer.score(model, query, rows, fakes.call(budget_s)))
        assert scores.tolist() == np.float32([0.01, 0.03, 0.02]).tolist()
        assert engine.inferences == 1
