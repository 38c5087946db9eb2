"""A request that is past its deadline costs no inference, where one would be made inline too."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pytest

import fakes
from feedrank.domain import FloatArray
from feedrank.errors import DeadlineExceededError
from feedrank.model import inference
from feedrank.model.load import Pace
from feedrank.ranking.batching import INLINE_LIMIT_S, BatchingScorer
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


def test_an_inference_on_the_event_loop_has_its_limit_from_now_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadlines_s: list[float] = []
    begin = inference.watchdog.begin

    def noting(watched: inference.Inference) -> None:
        deadlines_s.append(watched.deadline_s)
        begin(watched)

    monkeypatch.setattr(inference.watchdog, "begin", noting)
    model = replace(fakes.model(CountingEngine()), pace=Pace(1e-9, 1e-9))
    query = fakes.query()
    rows = asyncio.run(model.features.fetch(query, math.inf))
    started_s = perf_counter()
    asyncio.run(BatchingScorer().score(model, query, rows, fakes.call(30)))
    (deadline_s,) = deadlines_s
    assert started_s + INLINE_LIMIT_S <= deadline_s <= perf_counter() + INLINE_LIMIT_S
