import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakes
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.sinks import DecisionRecord, DecisionSink
from feedrank.decisions.sinks.files import DailyFiles
from feedrank.domain import Call, FeatureRows, FloatArray, Query, Ranking, RowSources
from feedrank.errors import DeadlineExceededError, ModelUnavailableError, ScoringError
from feedrank.http.fast_path import run_through
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot
from feedrank.ranking.pipeline import Ranker, best_first
from feedrank.ranking.scorer import InlineScorer
from feedrank.telemetry.metrics import request_metrics


def _rank(
    loaded: Model | None,
    query: Query | None = None,
    call: Call | None = None,
    sinks: tuple[DecisionSink, ...] = (),
) -> Ranking:
    ranker = Ranker(fakes.slot(loaded), InlineScorer(), DecisionLog(sinks))
    return asyncio.run(ranker.rank(query or fakes.query(), call or fakes.call()))


class LateSlot:
    """Has its model once the request's own time is over."""

    ready = None

    async def wait_for_model(self, call: Call) -> Model:
        while perf_counter() <= call.deadline_s:
            pass
        return fakes.model()


def test_a_request_that_waited_for_the_first_model_has_its_budget_once_more_on_lambda() -> None:
    ranker = Ranker(cast("ModelSlot", LateSlot()), InlineScorer(), DecisionLog())
    call = fakes.call(0.02, limit_s=60)
    assert asyncio.run(ranker.rank(fakes.query(), call)).order == [1, 2, 0]
    with pytest.raises(DeadlineExceededError):
        asyncio.run(ranker.rank(fakes.query(), fakes.call(0.02)))


class FixedEngine:
    def __init__(self, *scores: float) -> None:
        self._scores = np.array(scores, np.float32)

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        return self._scores


class SlowStore:
    """Never returns by itself."""

    waits = True

    async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


def test_a_request_becomes_a_ranking() -> None:
    ranking = _rank(fakes.model(), fakes.query(2, (10, 30, 500, 20)))
    assert ranking.scores == [0.01, 0.03, 0.5, 0.02]
    assert ranking.order == [2, 1, 3, 0]
    values = {
        "request_id": ranking.call.request_id,
        "timestamp": ranking.timestamp,
        "model_version": ranking.model_version,
        "model_digest": ranking.model_digest,
        "degraded": ranking.degraded,
        "unknown_users": ranking.unknown_users,
        "unknown_items": ranking.unknown_items,
        "unknown": ranking.unknown,
    }
    assert values == {
        "request_id": "req-1",
        "timestamp": "2026-11-22T12:00:00.123Z",
        "model_version": "feed_ranker-3",
        "model_digest": "dddddddddddd",
        "degraded": (),
        "unknown_users": 1,
        "unknown_items": 1,
        "unknown": {"user": True, "items": [500]},
    }
    assert 0 <= ranking.features_ms + ranking.scoring_ms <= ranking.latency_ms


@pytest.mark.parametrize(
    ("user", "items", "unknown"),
    [
        (1, (10, 30), None),
        (2, (10, 30), {"user": True, "items": []}),
        (1, (900, 10, 500, 900), {"user": False, "items": [900, 500]}),
    ],
    ids=["nothing", "the user", "items, each once"],
)
def test_ids_that_the_tables_lack_are_listed(
    user: int, items: tuple[int, ...], unknown: dict[str, Any] | None
) -> None:
    ranking = _rank(fakes.model(), fakes.query(user, items))
    assert ranking.unknown == unknown
    assert ranking.unknown_items == sum(item >= 100 for item in items)


@pytest.mark.parametrize(
    ("policy", "order"),
    [
        ("default", [1, 2, 5, 4, 3, 0]),
        ("last", [5, 4, 3, 0, 1, 2]),
        ("drop", [5, 4, 3, 0]),
    ],
)
def test_unknown_items_are_placed_as_the_spec_says(policy: str, order: list[int]) -> None:
    items = (10, 900, 500, 20, 30, 40)  # the fake store prices an unknown one highest, at 0.5
    ranking = _rank(fakes.model(unknown_items=policy), fakes.query(1, items))
    assert ranking.order == order
    assert ranking.unknown == {"user": False, "items": [900, 500]}
    assert ranking.scores == [0.01, 0.5, 0.5, 0.02, 0.03, 0.04]


def test_unknown_items_behind_the_known_ones_are_sorted_by_score() -> None:
    engine = FixedEngine(0.2, 0.9, 0.1, 0.7, 0.9, 0.8)
    items = (10, 900, 20, 800, 700, 600)
    ranking = _rank(fakes.model(engine, unknown_items="last"), fakes.query(1, items))
    assert [items[at] for at in ranking.order] == [10, 20, 900, 700, 600, 800]


def test_a_request_for_unknown_items_alone_may_have_an_empty_response(tmp_path: Path) -> None:
    query, files = fakes.query(1, (900, 500, 900)), DailyFiles(tmp_path)
    ranking = _rank(fakes.model(unknown_items="drop"), query, sinks=(files,))
    assert (ranking.order, ranking.unknown) == ([], {"user": False, "items": [900, 500]})
    record = json.loads((tmp_path / "predictions_2026-11-22.jsonl").read_bytes())
    assert record["item_ids"] == [900, 500, 900]
    assert (record["ranks"], record["scores"]) == ([None] * 3, [0.5] * 3)
    measured = request_metrics(1.5, 200, ranking)
    assert (measured["ScoreMean"], measured["ScoreSpread"]) == (0.5, 0.0)
    assert (measured["ItemsScored"], measured["UnknownItems"]) == (3, 3)


@given(
    st.lists(st.integers(0, 199), min_size=1, max_size=30),
    st.sampled_from(["default", "last", "drop"]),
)
def test_every_known_item_is_ranked_whatever_the_policy(items: list[int], policy: str) -> None:
    ranking = _rank(fakes.model(unknown_items=policy), fakes.query(1, items))
    known = [at for at, item in enumerate(items) if item < 100]
    left_out = set(range(len(items))) - set(ranking.order)
    assert [at for at in ranking.order if items[at] < 100] == sorted(
        known, key=lambda at: -items[at]
    )
    assert left_out == (set(range(len(items))) - set(known) if policy == "drop" else set())
    if policy == "last":
        assert set(ranking.order[: len(known)]) == set(known)


class LostStore(fakes.FakeStore):
    """Defaults stand for all rows. The items have other prices all the same."""

    def __init__(self, *, all_lost: bool) -> None:
        super().__init__(("features:defaults 4/4",))
        self._sources = RowSources("dddd", "----", all_lost=all_lost)

    async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
        return (await super().fetch(query, deadline_s))._replace(sources=self._sources)


@pytest.mark.parametrize(
    ("keep_order", "all_lost", "order", "degraded"),
    [
        (False, True, [1, 2, 0], ("features:defaults 4/4",)),
        (True, False, [1, 2, 0], ("features:defaults 4/4",)),
        (True, True, [0, 1, 2], ("features:defaults 4/4", "order:caller")),
    ],
)
def test_where_all_rows_are_lost_the_callers_order_can_be_kept(
    *, keep_order: bool, all_lost: bool, order: list[int], degraded: tuple[str, ...]
) -> None:
    slot = fakes.slot(fakes.model(store=LostStore(all_lost=all_lost)))
    ranker = Ranker(slot, InlineScorer(), DecisionLog(), keep_order=keep_order)
    ranking = asyncio.run(ranker.rank(fakes.query(), fakes.call()))
    assert (ranking.order, ranking.degraded) == (order, degraded)


def test_equal_scores_keep_the_callers_order() -> None:
    scores = [0.5, 0.9, 0.5, 0.9, 0.1] * 20
    ranking = _rank(fakes.model(FixedEngine(*scores)), fakes.query(1, range(100)))
    naive = sorted(range(100), key=lambda at: -scores[at])
    assert ranking.order == naive


def test_small_scores_keep_their_order_and_can_be_told_apart() -> None:
    random = np.random.default_rng(3)
    scores = random.permutation(np.linspace(2e-7, 1.2e-6, 100)).tolist()
    ranking = _rank(fakes.model(FixedEngine(*scores)), fakes.query(1, range(100)))
    assert ranking.order == sorted(range(100), key=lambda at: -scores[at])
    decimals = [ranking.scores[at] for at in ranking.order]
    assert all(better > worse for better, worse in pairwise(decimals))


_SCORES = st.floats(0, 1, width=32) | st.sampled_from([0.0, -0.0, 2**-149, 0.1, 1.0, 1 - 2**-24])


@given(st.lists(_SCORES, min_size=1, max_size=100), st.sampled_from([1, 2]))
def test_what_is_shown_reads_back_as_the_engines_score(scores: list[float], stride: int) -> None:
    engine_scores = np.repeat(np.array(scores, np.float32), stride)[::stride]
    decimals, order = best_first(engine_scores)
    assert np.array(decimals).astype(np.float32).tolist() == engine_scores.tolist()
    assert order == sorted(range(len(scores)), key=lambda at: -engine_scores[at])
    assert [repr(each) for each in decimals] == [repr(float(str(each))) for each in engine_scores]


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("wrong", [-1e-6, -1e-45, 1.0000001, np.nan, np.inf, -np.inf])
def test_a_score_outside_zero_to_one_is_an_error(wrong: float, at: int) -> None:
    scores = np.array([0.5, 0.9, 0.1], np.float32)
    scores[at] = wrong
    with pytest.raises(ScoringError, match="outside"):
        best_first(scores)


def test_the_record_holds_the_response(tmp_path: Path) -> None:
    query = fakes.query(1, (10, 30, 10), temp="21.5")
    call = fakes.call()._replace(correlation_id="JKJaXmPLvHcESHA=", trace_id="1-67891233-abcdef")
    ranking = _rank(fakes.model(), query, call, sinks=(DailyFiles(tmp_path),))
    written = json.loads((tmp_path / "predictions_2026-11-22.jsonl").read_bytes())
    assert written == fakes.recorded(ranking)


def test_a_sink_that_refuses_does_not_fail_the_request() -> None:
    ranking = _rank(fakes.model(), sinks=(fakes.FullDisk(),))
    assert (ranking.order, ranking.spilled) == ([1, 2, 0], 1)


def test_the_event_loop_goes_on_while_a_stream_takes_its_time() -> None:
    async def both() -> Ranking:
        loop, begun, free = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        class SlowStream(fakes.FakeStream):
            def write(self, record: DecisionRecord) -> None:
                loop.call_soon_threadsafe(begun.set)
                assert free.wait(30)

        ranker = Ranker(fakes.slot(fakes.model()), InlineScorer(), DecisionLog([SlowStream()]))
        ranked = asyncio.create_task(ranker.rank(fakes.query(), fakes.call(is_alone=False)))
        await begun.wait()
        free.set()
        return await ranked

    assert asyncio.run(both()).order == [1, 2, 0]


def test_on_lambda_a_stream_needs_no_event_loop() -> None:
    stream = fakes.FakeStream()
    ranker = Ranker(fakes.slot(fakes.model()), InlineScorer(), DecisionLog([stream]))
    run_through(ranker.rank(fakes.query(), fakes.call()))
    assert len(stream.lines) == 1


def test_degraded_names_what_replaces_the_model_and_the_features() -> None:
    store = fakes.FakeStore(degraded=("features:snapshot",))
    ranking = _rank(fakes.model(store=store, degraded=("model:layer",)))
    assert ranking.degraded == ("model:layer", "features:snapshot")


def test_without_a_model_nothing_is_recorded() -> None:
    sink = fakes.MemorySink()
    with pytest.raises(ModelUnavailableError):
        _rank(None, sinks=(sink,))
    assert sink.lines == []


def test_a_store_past_the_deadline_is_given_up() -> None:
    sink = fakes.MemorySink()
    with pytest.raises(DeadlineExceededError):
        _rank(fakes.model(store=SlowStore()), call=fakes.call(0.01), sinks=(sink,))
    assert sink.lines == []


@pytest.mark.parametrize("budget_s", [0.0, -5.0])
def test_a_request_past_its_deadline_is_given_up(budget_s: float) -> None:
    with pytest.raises(DeadlineExceededError):
        _rank(fakes.model(), call=fakes.call(budget_s))


def test_a_model_that_can_not_score_leaves_no_record() -> None:
    sink = fakes.MemorySink()
    with pytest.raises(ScoringError):
        _rank(fakes.model(fakes.RaisingEngine(ScoringError("no"))), sinks=(sink,))
    assert sink.lines == []


def test_each_step_is_a_span() -> None:
    spans: list[str] = []

    class Tracing:
        def span(self, name: str) -> Any:
            spans.append(name)
            return nullcontext()

        def handler(self, handler: Any) -> Any:
            return handler

    ranker = Ranker(fakes.slot(fakes.model()), InlineScorer(), DecisionLog(), Tracing())
    asyncio.run(ranker.rank(fakes.query(), fakes.call()))
    assert spans == ["features", "scoring"]


def test_a_ranking_has_the_context_that_its_record_will_have() -> None:
    assert _rank(fakes.model(), fakes.query(temp="7")).context == {"temp": "7"}
    assert _rank(fakes.model()).context == {}
