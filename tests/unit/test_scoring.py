"""Which thread scores, and who shares a run."""

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
POISON = 66  # an item that no run survives
# Asks for a run of half a second and more, and ends while that goes on.
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
    asked = asyncio.create_task(BatchingScorer().score(model, fakes.query(), rows, call))
    await asyncio.to_thread(begun.wait)
    asked.cancel()

asyncio.run(ask())
print("ended")
"""


class WatchedEngine:
    """Scores an item by its price, but once it is let to; keeps who scored how many at once."""

    def __init__(self, *, free: bool = True) -> None:
        self.threads: list[str] = []
        self.runs: list[int] = []
        self.begun, self.free = threading.Event(), threading.Event()
        if free:
            self.free.set()

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        prices = inputs["features"][:, 1]
        self.threads.append(threading.current_thread().name)
        self.runs.append(len(prices))
        self.begun.set()
        assert self.free.wait(timeout=30)
        if np.isclose(prices, POISON / 1_000).any():
            raise ScoringError("poisoned")
        return prices


class StoppableEngine(WatchedEngine):
    """The same, whose runs can be ended; one of POISON goes on until it is."""

    stopper = fakes.Stopper

    def score(
        self, inputs: Mapping[str, FloatArray], stopper: fakes.Stopper | None = None
    ) -> FloatArray:
        if stopper and np.isclose(inputs["features"][:, 1], POISON / 1_000).any():
            self.threads.append(threading.current_thread().name)
            assert stopper.ended.wait(timeout=30)
            raise ScoringError("ended")
        return super().score(inputs)


class LateEngine(StoppableEngine):
    """One whose runs can't be ended in time, and end by themselves past this moment."""

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
    """One whose runs have taken so long."""
    return replace(fakes.model(engine, batches=batches), pace=Pace(run_s, item_s))


async def _score(
    scorer: Scorer, model: Model, items: Sequence[int] = (10, 30, 20), call: Call | None = None
) -> list[float]:
    query = fakes.query(1, items)
    rows = await model.features.fetch(query, inf)
    async with asyncio.timeout(30):
        scores = await scorer.score(model, query, rows, call or fakes.call())
    return scores.tolist()


Asked = Awaitable[list[float]]
Outcomes = list[list[float] | BaseException]


def _while_one_is_scored(
    engine: WatchedEngine,
    scorer: Scorer,
    later: Callable[[], Sequence[Asked]],
    *,
    one_goes: bool = False,
) -> Outcomes:
    """What those get who ask during a run; the run is another's, of item 1, and ends once one of
    them went away, where one does."""

    async def ask() -> Outcomes:
        failed: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failed.append(what))
        async with asyncio.timeout(30):
            first = asyncio.create_task(_score(scorer, _model(engine), [1]))
            assert await asyncio.to_thread(engine.begun.wait, 30)
            tasks = [asyncio.ensure_future(each) for each in later()]
            await asyncio.sleep(0)  # they wait now
            if one_goes:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            engine.free.set()
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
def test_a_long_run_is_made_in_the_thread_where_other_requests_wait(
    scorer: Scorer, run_s: float, item_s: float, thread: str
) -> None:
    engine = StoppableEngine()
    assert asyncio.run(_score(scorer, _model(engine, run_s, item_s))) == _prices(10, 30, 20)
    assert engine.threads == [thread]


def test_an_inline_run_needs_no_event_loop_and_a_batched_one_does() -> None:
    assert (InlineScorer().waits, BatchingScorer().waits) == (False, True)
    query, model = fakes.query(), fakes.model(StoppableEngine())
    rows = run_through(model.features.fetch(query, inf))
    scores = run_through(InlineScorer().score(model, query, rows, fakes.call()))
    assert scores.tolist() == _prices(10, 30, 20)


def test_the_event_loop_goes_on_meanwhile() -> None:
    engine = WatchedEngine(free=False)

    async def go_on() -> None:
        assert await asyncio.to_thread(engine.begun.wait, 30)
        engine.free.set()

    async def both() -> list[float]:
        scores, _ = await asyncio.gather(_score(BatchingScorer(), _model(engine)), go_on())
        return scores

    assert asyncio.run(both()) == _prices(10, 30, 20)


def test_what_waits_is_scored_in_one_run() -> None:
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
    model = _model(engine)
    asked = [[5], [40, 20, 30], [7, 7]]
    outcomes = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, items) for items in asked]
    )
    assert outcomes == [_prices(*items) for items in asked]
    assert engine.runs == [1, 6]
    assert set(engine.threads) == {THREAD}


@pytest.mark.parametrize(
    ("limit", "value", "least_item_s"), [("MAX_BATCH_ITEMS", 4, 0.0), ("ENOUGH_S", 4e-9, 1e-9)]
)
def test_a_run_takes_no_more_once_it_has_enough(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: float, least_item_s: float
) -> None:
    monkeypatch.setattr(batching, limit, value)
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
    model = _model(engine, 1.0, least_item_s)
    outcomes = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, [at, at]) for at in range(5)]
    )
    assert outcomes == [_prices(at, at) for at in range(5)]
    assert engine.runs == [1, 4, 4, 2]


def test_a_model_whose_rows_belong_together_scores_each_request_by_itself() -> None:
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
    model = _model(engine, batches=False)
    outcomes = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, [at, at]) for at in range(3)]
    )
    assert outcomes == [_prices(at, at) for at in range(3)]
    assert engine.runs == [1, 2, 2, 2]


def test_two_models_never_share_a_run() -> None:
    class Dearer(WatchedEngine):
        def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
            return super().score(inputs) * 2

    cheap, dear, scorer = WatchedEngine(free=False), Dearer(), BatchingScorer()
    models = [_model(cheap), _model(dear)]
    outcomes = _while_one_is_scored(
        cheap, scorer, lambda: [_score(scorer, models[at % 2], [at]) for at in range(4)]
    )
    assert outcomes == [_prices(0), _prices(2), _prices(2), _prices(6)]
    assert (cheap.runs, dear.runs) == ([1, 1, 1], [1, 1])


def test_an_error_in_a_shared_run_is_only_whose_it_is() -> None:
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
    model = _model(engine)
    asked = [[5, 6], [POISON], [7]]
    good, bad, other = _while_one_is_scored(
        engine, scorer, lambda: [_score(scorer, model, items) for items in asked]
    )
    assert (good, other) == (_prices(5, 6), _prices(7))
    assert isinstance(bad, ScoringError)
    assert engine.runs == [1, 4, 2, 1, 1]


def test_who_asks_what_no_matrix_can_hold_disturbs_nobody() -> None:
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
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
    assert engine.runs == []


def test_whose_time_is_up_in_the_queue_is_not_scored_and_others_are() -> None:
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
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
    assert engine.runs == [1, 1]


def test_time_may_run_out_between_two_runs_of_those_who_waited_together() -> None:
    class Slow(WatchedEngine):
        def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
            scores = super().score(inputs)
            time.sleep(0.2)
            return scores

    engine, scorer = Slow(free=False), BatchingScorer()
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
    assert engine.runs == [1, 1]


SHORT_S = 0.5  # of a budget, where it is to run out: enough to begin on a busy machine


@pytest.mark.parametrize(
    ("scorer", "thread"), [(InlineScorer(), "MainThread"), (BatchingScorer(), THREAD)]
)
def test_a_run_is_stopped_at_the_requests_deadline(scorer: Scorer, thread: str) -> None:
    engine = StoppableEngine()
    with pytest.raises(DeadlineExceededError):
        asyncio.run(_score(scorer, _model(engine), [POISON], fakes.call(SHORT_S)))
    assert asyncio.run(_score(scorer, _model(engine))) == _prices(10, 30, 20)
    assert engine.threads == [thread, thread]


@pytest.mark.parametrize("scorer", [InlineScorer(), BatchingScorer()])
def test_a_run_that_can_not_be_stopped_keeps_no_request_past_its_deadline(scorer: Scorer) -> None:
    engine = WatchedEngine(free=False)
    for _ in range(2):  # the second request's run waits for the first one's all the time
        with pytest.raises(DeadlineExceededError):
            asyncio.run(_score(scorer, _model(engine), call=fakes.call(SHORT_S)))
    assert watchdog.late
    engine.free.set()
    assert asyncio.run(_score(scorer, _model(engine), [5])) == _prices(5)
    assert not watchdog.late
    assert (engine.runs, set(engine.threads)) == ([3, 1], {THREAD})


@pytest.mark.parametrize("scorer", [InlineScorer(), BatchingScorer()])
def test_scores_that_come_too_late_are_not_returned(scorer: Scorer) -> None:
    engine, call = LateEngine(), fakes.call(SHORT_S)
    engine.until_s = call.deadline_s
    with pytest.raises(DeadlineExceededError):
        asyncio.run(_score(scorer, _model(engine, run_s=0.0), call=call))
    assert engine.runs == [3]


def test_a_run_that_keeps_the_event_loop_too_long_is_made_again_in_the_thread() -> None:
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
    assert model.pace.run_s > 0, "how brief it was is forgotten"


def test_a_process_ends_in_good_order_within_a_run(demo_bundle: Path) -> None:
    """ONNX Runtime's C++ doesn't survive that its thread is ended from outside."""
    line = [sys.executable, "-c", ENDS_WITHIN_A_RUN, str(demo_bundle / ONNX_MODEL)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(line, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_an_idle_thread_holds_on_to_no_model() -> None:
    scorer, model = BatchingScorer(), _model(WatchedEngine())
    asyncio.run(_score(scorer, model))
    seen = weakref.ref(model.engine)
    del model
    deadline_s = time.perf_counter() + 30
    while seen() is not None and time.perf_counter() < deadline_s:
        gc.collect()
        time.sleep(0.01)
    assert seen() is None


def test_who_goes_away_disturbs_nobody() -> None:
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
    model = _model(engine)

    async def impatient() -> list[float]:
        async with asyncio.timeout(0):
            return await _score(scorer, model, [5])

    gone, good = _while_one_is_scored(
        engine, scorer, lambda: [impatient(), _score(scorer, model, [6])], one_goes=True
    )
    assert isinstance(gone, TimeoutError)
    assert good == _prices(6)
    assert engine.runs == [1, 1], "who went away is not scored"


def test_an_event_loop_that_ends_takes_nothing_with_it() -> None:
    engine, scorer = WatchedEngine(free=False), BatchingScorer()
    model = _model(engine)

    async def ask_and_leave() -> None:
        asked = asyncio.create_task(_score(scorer, model))
        assert await asyncio.to_thread(engine.begun.wait, 30)
        asked.cancel()

    asyncio.run(ask_and_leave())
    engine.free.set()
    assert asyncio.run(_score(scorer, model)) == _prices(10, 30, 20)


def test_what_a_run_takes_is_the_least_that_was_measured() -> None:
    engine, scorer = StoppableEngine(), BatchingScorer()
    model = fakes.model(engine)
    asyncio.run(_score(scorer, model))  # handed over: nothing is known yet
    assert 0 < model.pace.item_s < model.pace.run_s < 1
    brief = _model(engine, 1e-9, 1e-9)
    asyncio.run(_score(scorer, brief))
    assert engine.threads == [THREAD, "MainThread"]
    assert brief.pace == Pace(1e-9, 1e-9)


def test_a_brief_model_says_nothing_about_the_one_that_follows_it() -> None:
    """Such as a small fallback about the real model."""
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
