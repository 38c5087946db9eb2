"""Which thread scores, and which requests share a batch."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from feedrank.bundle.layout import ONNX_MODEL
from feedrank.domain import Call, FloatArray, Query
from feedrank.errors import DeadlineExceededError, InvalidRequestError, ScoringError
from feedrank.http.fast_path import run_through
from feedrank.model.engines import ScoringEngine
from feedrank.model.inference import watchdog
from feedrank.model.load import Model, Pace
from feedrank.ranking import batching
from feedrank.ranking.batching import BatchingScorer
from feedrank.ranking.scorer import InlineScorer, Scorer

THREAD = "scoring"
POISON = 66  # an item that fails every inference
# Starts an inference of half a second or more, and ends meanwhile.
ENDS_WITHIN_A_RUN = """
import asyncio, sys, threading
from math import inf
from pathlib import Path
import numpy as np
import fakes
from feedrank.model.engines.onnx import OnnxEngine
from feedrank.ranking.batching import BatchingScorer

begun = threading.Event()

class Big(OnnxEngine):
    def score(self, inputs, stopper=None):
        big = {"features": np.zeros((1_000, 15), np.float32)}
        begun.set()
        for _ in range(1_000):
            super().score(big)
        return inputs["features"][:, 1]

async def ask():
    model = fakes.model(Big(Path(sys.argv[1]), 1))
    rows = await model.features.fetch(fakes.query(), inf)
    call = fakes.call()
    request = asyncio.create_task(BatchingScorer().score(model, fakes.query(), rows, call))
    await asyncio.to_thread(begun.wait)
    request.cancel()

asyncio.run(ask())
print("ended")
"""


class WatchedEngine:
    """Scores an item by its price, once it is released; keeps its threads and batch sizes."""

    def __init__(self, *, released: bool = True) -> None:
        self.threads: list[str] = []
        self.batches: list[int] = []
        self.begun, self.released = threading.Event(), threading.Event()
        if released:
            self.released.set()

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        prices = inputs["features"][:, 1]
        self.threads.append(threading.current_thread().name)
        self.batches.append(len(prices))
        self.begun.set()
        assert self.released.wait(timeout=30)
        if np.isclose(prices, POISON / 1_000).any():
            raise ScoringError("poisoned")
        return prices


class StoppableEngine(WatchedEngine):
    """Can stop an inference; one of POISON goes on until it is stopped."""

    stopper = fakes.Stopper

    def score(
        self, inputs: Mapping[str, FloatArray], stopper: fakes.Stopper | None = None
    ) -> FloatArray:
        if stopper and np.isclose(inputs["features"][:, 1], POISON / 1_000).any():
            self.threads.append(threading.current_thread().name)
            assert stopper.ended.wait(timeout=30)
            raise ScoringError("stopped")
        return super().score(inputs)


class LateEngine(StoppableEngine):
    """Ignores its stopper, and ends after this moment."""

    until_s = 0.0

    def score(
        self, inputs: Mapping[str, FloatArray], stopper: fakes.Stopper | None = None
    ) -> FloatArray:
        while time.perf_counter() <= self.until_s:
            pass
        return super().score(inputs)


def _model(
    engine: ScoringEngine, run_s: float = 1.0, item_s: float = 0.0, *, batches: bool = True
) -> Model:
    """A model whose inferences took so long."""
    return replace(fakes.model(engine, batches=batches), pace=Pace(run_s, item_s))


async def _score(
    scorer: Scorer, model: Model, items: Sequence[int] = (10, 30, 20), call: Call | None = None
) -> list[float]:
    query = fakes.query(1, items)
    rows = await model.features.fetch(query, inf)
    async with asyncio.timeout(30):
        scores = await scorer.score(model, query, rows, call or fakes.call())
    return scores.tolist()


Request = Awaitable[list[float]]
Outcomes = list[list[float] | BaseException]


def _while_one_is_scored(
    engine: WatchedEngine,
    scorer: Scorer,
    later: Callable[[], Sequence[Request]],
    *,
    one_goes: bool = False,
) -> Outcomes:
    """The outcomes of requests that come during the inference of another, of item 1. With
    `one_goes` it ends once one of them was cancelled."""

    async def ask() -> Outcomes:
        failed: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failed.append(what))
        async with asyncio.timeout(30):
            first = asyncio.create_task(_score(scorer, _model(engine), [1]))
            assert await asyncio.to_thread(engine.begun.wait, 30)
            tasks = [asyncio.ensure_future(each) for each in later()]
            await asyncio.sleep(0)  # now they wait
            if one_goes:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            engine.released.set()
            assert await first == _prices(1)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not failed
        return outcomes

    return asyncio.run(ask())


def _prices(*items: int) -> list[float]:
    return (np.array(items) / 1_000).astype(np.float32).tolist()


@pytest.mark.parametrize(
    ("scorer", "run_s", "item_s", "thread"),
    [
        (BatchingScorer(), 1.0, 0.0, THREAD),
        (BatchingScorer(), 0.0, 1.0, THREAD),
        (BatchingScorer(), 0.0, batching.HAND_OVER_S / 4, "MainThread"),  # three items: too brief
        (BatchingScorer(), 0.0, batching.HAND_OVER_S / 2, THREAD),
        (InlineScorer(), 1.0, 1.0, "MainThread"),  # no other request waits
    ],
)
def test_a_long_inference_takes_place_in_the_thread_if_other_requests_wait(
    scorer: Scorer, run_s: float, item_s: float, thread: str
) -> None:
    engine = StoppableEngine()
    assert asyncio.run(_score(scorer, _model(engine, run_s, item_s))) == _prices(10, 30, 20)
    assert engine.threads == [thread]


def test_inline_scoring_needs_no_event_loop_and_batching_does() -> None:
    assert (InlineScorer().waits, BatchingScorer().waits) == (False, True)
    query, model = fakes.query(), fakes.model(StoppableEngine())
    rows = run_through(model.features.fetch(query, inf))
    scores = run_through(InlineScorer().score(model, query, rows, fakes.call()))
    assert scores.tolist() == _prices(10, 30, 20)


def test_the_event_loop_goes_on_meanwhile() -> None:
    engine = WatchedEngine(released=False)

    async def go_on() -> None:
        assert await asyncio.to_thread(engine.begun.wait, 30)
        engine.released.set()

    async def both() -> list[float]:
        scores, _ = await asyncio.gather(_score(BatchingScorer(), _model(engine)), go_on())
        return scores

    assert asyncio.run(both()) == _prices(10, 30, 20)


def test_requests_that_wait_share_a_batch() -> None:
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine)
    requests = [[5], [40, 20, 30], [7, 7]]
    outcomes = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, items) for items in requests]
    )
    assert outcomes == [_prices(*items) for items in requests]
    assert engine.batches == [1, 6]
    assert set(engine.threads) == {THREAD}


@pytest.mark.parametrize(
    ("limit", "value", "least_item_s"), [("MAX_BATCH_ITEMS", 4, 0.0), ("ENOUGH_S", 4e-9, 1e-9)]
)
def test_a_batch_takes_no_more_once_it_has_enough(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: float, least_item_s: float
) -> None:
    monkeypatch.setattr(batching, limit, value)
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine, 1.0, least_item_s)
    outcomes = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, [at, at]) for at in range(5)]
    )
    assert outcomes == [_prices(at, at) for at in range(5)]
    assert engine.batches == [1, 4, 4, 2]


def test_a_model_whose_items_depend_on_each_other_scores_each_request_by_itself() -> None:
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine, batches=False)
    outcomes = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, [at, at]) for at in range(3)]
    )
    assert outcomes == [_prices(at, at) for at in range(3)]
    assert engine.batches == [1, 2, 2, 2]


def test_two_models_never_share_a_batch() -> None:
    class Dearer(WatchedEngine):
        def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
            return super().score(inputs) * 2

    cheap, dear, scorer = WatchedEngine(released=False), Dearer(), BatchingScorer()
    models = [_model(cheap), _model(dear)]
    outcomes = _while_one_is_scored(
        cheap, scorer, lambda: [_score(scorer, models[at % 2], [at]) for at in range(4)]
    )
    assert outcomes == [_prices(0), _prices(2), _prices(2), _prices(6)]
    assert (cheap.batches, dear.batches) == ([1, 1, 1], [1, 1])


def test_an_error_in_a_batch_fails_only_the_request_that_caused_it() -> None:
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine)
    requests = [[5, 6], [POISON], [7]]
    good, bad, other = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, items) for items in requests]
    )
    assert (good, other) == (_prices(5, 6), _prices(7))
    assert isinstance(bad, ScoringError)
    assert engine.batches == [1, 4, 2, 1, 1]


def test_a_request_without_a_matrix_does_not_disturb_others() -> None:
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine)

    async def wrong() -> list[float]:
        query: Query = fakes.query(1, [1], temp="warm")
        rows = await model.features.fetch(query, inf)
        scores = await scorer.score(model, query, rows, fakes.call())
        return scores.tolist()

    bad, good = _while_one_is_scored(engine, scorer, lambda: [wrong(), _score(scorer, model, [5])])
    assert isinstance(bad, InvalidRequestError)
    assert good == _prices(5)


@pytest.mark.parametrize("scorer", [InlineScorer(), BatchingScorer()])
def test_a_request_whose_time_is_up_is_not_scored(scorer: Scorer) -> None:
    engine = WatchedEngine()
    with pytest.raises(DeadlineExceededError):
        asyncio.run(_score(scorer, _model(engine), call=fakes.call(0)))
    assert engine.batches == []


def test_a_request_whose_time_is_up_in_the_queue_is_not_scored_and_others_are() -> None:
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine)
    late, good = _while_one_is_scored(
        engine,
        scorer,
        lambda: [
            _score(scorer, model, [5], fakes.call(0)),
            _score(scorer, model, [6]),
        ],
    )
    assert isinstance(late, DeadlineExceededError)
    assert good == _prices(6)
    assert engine.batches == [1, 1]


def test_time_may_run_out_between_two_inferences_of_requests_that_waited_together() -> None:
    class Slow(WatchedEngine):
        def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
            scores = super().score(inputs)
            time.sleep(0.2)
            return scores

    engine, scorer = Slow(released=False), BatchingScorer()
    model = _model(engine, batches=False)
    good, late = _while_one_is_scored(
        engine,
        scorer,
        lambda: [
            _score(scorer, model, [5]),
            _score(scorer, model, [6], fakes.call(0.3)),
        ],
    )
    assert good == _prices(5)
    assert isinstance(late, DeadlineExceededError)
    assert engine.batches == [1, 1]


SHORT_S = 0.5  # a budget that is meant to run out: enough to begin on a busy machine


@pytest.mark.parametrize(
    ("scorer", "thread"), [(InlineScorer(), "MainThread"), (BatchingScorer(), THREAD)]
)
def test_an_inference_is_stopped_at_the_requests_deadline(scorer: Scorer, thread: str) -> None:
    engine = StoppableEngine()
    with pytest.raises(DeadlineExceededError):
        asyncio.run(_score(scorer, _model(engine), [POISON], fakes.call(SHORT_S)))
    assert asyncio.run(_score(scorer, _model(engine))) == _prices(10, 30, 20)
    assert engine.threads == [thread, thread]


@pytest.mark.parametrize("scorer", [InlineScorer(), BatchingScorer()])
def test_an_unstoppable_inference_keeps_no_request_past_its_deadline(
    scorer: Scorer,
) -> None:
    engine = WatchedEngine(released=False)
    for _ in range(2):  # the second inference waits for the first one all the time
        with pytest.raises(DeadlineExceededError):
            asyncio.run(_score(scorer, _model(engine), call=fakes.call(SHORT_S)))
    assert watchdog.late
    engine.released.set()
    assert asyncio.run(_score(scorer, _model(engine), [5])) == _prices(5)
    assert not watchdog.late
    assert (engine.batches, set(engine.threads)) == ([3, 1], {THREAD})


@pytest.mark.parametrize("scorer", [InlineScorer(), BatchingScorer()])
def test_scores_that_come_too_late_are_not_returned(scorer: Scorer) -> None:
    engine, call = LateEngine(), fakes.call(SHORT_S)
    engine.until_s = call.deadline_s
    with pytest.raises(DeadlineExceededError):
        asyncio.run(_score(scorer, _model(engine, run_s=0.0), call=call))
    assert engine.batches == [3]


def test_an_inference_that_blocks_the_event_loop_too_long_is_repeated_in_the_thread() -> None:
    class OnceSlow(StoppableEngine):
        def score(
            self, inputs: Mapping[str, FloatArray], stopper: fakes.Stopper | None = None
        ) -> FloatArray:
            if not self.threads:
                inputs = {"features": np.full_like(inputs["features"], POISON / 1_000)}
            return super().score(inputs, stopper)

    engine, scorer = OnceSlow(), BatchingScorer()
    model = _model(engine, 0.0)
    assert asyncio.run(_score(scorer, model)) == _prices(10, 30, 20)
    assert engine.threads == ["MainThread", THREAD]
    assert model.pace.run_s > 0, "its pace is forgotten"


def test_a_process_ends_normally_within_an_inference(demo_bundle: Path) -> None:
    """Ending a thread within ONNX Runtime's C++ would abort the process."""
    line = [sys.executable, "-c", ENDS_WITHIN_A_RUN, str(demo_bundle / ONNX_MODEL)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(line, env=environ, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "ended\n"), process.stderr


def test_an_idle_thread_keeps_no_model_alive() -> None:
    scorer, model = BatchingScorer(), _model(WatchedEngine())
    asyncio.run(_score(scorer, model))
    reference = weakref.ref(model.engine)
    del model
    deadline_s = time.perf_counter() + 30
    while reference() is not None and time.perf_counter() < deadline_s:
        gc.collect()
        time.sleep(0.01)
    assert reference() is None


def test_a_cancelled_request_does_not_disturb_others() -> None:
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine)

    async def impatient() -> list[float]:
        async with asyncio.timeout(0):
            return await _score(scorer, model, [5])

    cancelled, good = _while_one_is_scored(
        engine, scorer, lambda: [impatient(), _score(scorer, model, [6])], one_goes=True
    )
    assert isinstance(cancelled, TimeoutError)
    assert good == _prices(6)
    assert engine.batches == [1, 1], "the cancelled request is not scored"


def test_the_end_of_an_event_loop_does_not_stop_the_thread() -> None:
    engine, scorer = WatchedEngine(released=False), BatchingScorer()
    model = _model(engine)

    async def ask_and_leave() -> None:
        request = asyncio.create_task(_score(scorer, model))
        assert await asyncio.to_thread(engine.begun.wait, 30)
        request.cancel()

    asyncio.run(ask_and_leave())
    engine.released.set()
    assert asyncio.run(_score(scorer, model)) == _prices(10, 30, 20)


def test_the_pace_is_the_shortest_inference() -> None:
    engine, scorer = StoppableEngine(), BatchingScorer()
    model = fakes.model(engine)
    asyncio.run(_score(scorer, model))  # handed over: its pace is not known yet
    assert 0 < model.pace.item_s < model.pace.run_s < 1
    brief = _model(engine, 1e-9, 1e-9)
    asyncio.run(_score(scorer, brief))
    assert engine.threads == [THREAD, "MainThread"]
    assert brief.pace == Pace(1e-9, 1e-9)


def test_each_model_has_a_pace_of_its_own() -> None:
    """A small fallback says nothing about the configured model."""
    engine, scorer = StoppableEngine(), BatchingScorer()
    asyncio.run(_score(scorer, _model(engine, 1e-9, 1e-9)))
    asyncio.run(_score(scorer, fakes.model(engine)))
    asyncio.run(_score(scorer, _model(engine)))
    assert engine.threads == ["MainThread", THREAD, THREAD]


@pytest.mark.parametrize("error", [ScoringError("no"), MemoryError(), SystemExit(1)])
def test_an_error_in_the_thread_is_the_requests_and_the_thread_goes_on(
    error: BaseException,
) -> None:
    class Raising(WatchedEngine):
        def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
            super().score(inputs)
            raise error

    scorer = BatchingScorer()

    async def ask(engine: Any) -> Any:
        return (await asyncio.gather(_score(scorer, _model(engine)), return_exceptions=True))[0]

    if isinstance(error, Exception):
        assert asyncio.run(ask(Raising())) is error
    else:
        with pytest.raises(SystemExit):
            asyncio.run(ask(Raising()))
    assert asyncio.run(ask(WatchedEngine())) == _prices(10, 30, 20)
