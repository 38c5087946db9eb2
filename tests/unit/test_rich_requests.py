"""Requests for a model of text ids, candidate features and several outputs, through the app."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

import clients
import fakes
import fullspec
from clients import problem
from feedrank.decisions.log import DecisionLog
from feedrank.domain import FloatArray, Query
from feedrank.errors import BundleError, DeadlineExceededError, ScoringError
from feedrank.model.load import Model, Pace
from feedrank.model.slot import ModelSlot
from feedrank.ranking.batching import BatchingScorer
from feedrank.ranking.pipeline import Ranker
from feedrank.ranking.scorer import InlineScorer, Scorer

REQUEST = {"user_id": "ann", "item_ids": ["i", "nobody", "j"]}
NUMBERS, TEXTS = "this model's ids are whole numbers", "this model's ids are texts"
SECRET = "SECRET-b7f1"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return fullspec.model(tmp_path)


@pytest.fixture
def client(model: Model) -> TestClient:
    return clients.client(model)


def ask(client: TestClient, **changes: Any) -> Response:
    return client.post("/predict", json=REQUEST | changes)


def ids(response: Response) -> list[Any]:
    assert response.status_code == 200, response.text
    return [each["item_id"] for each in response.json()["predictions"]]


def test_text_ids_come_back_as_they_were_sent(client: TestClient) -> None:
    response = ask(client, user_id=" Zoë\u0000 ", item_ids=["j", "", "\U0001f3ac" * 128][::2])
    body = response.json()
    assert body["user_id"] == " Zoë\u0000 "
    assert sorted(ids(response)) == ["j", "\U0001f3ac" * 128]
    assert body["unknown"] == {"user": True, "items": ["\U0001f3ac" * 128]}


@pytest.mark.parametrize(
    ("sent", "scores"),  # i and j differ by what the caller knows of them alone
    [
        ({}, ["j", "i"]),
        ({"retrieval_score": [900, 0.5]}, ["i", "j"]),
        ({"retrieval_score": [900.0, None]}, ["i", "j"]),
        ({"clip": [[20, 300, 400], [1, 2]]}, ["i", "j"]),
        ({"clip": [[], None]}, ["j", "i"]),
    ],
)
def test_what_the_caller_knows_of_each_item_ranks(
    client: TestClient, sent: dict[str, Any], scores: list[str]
) -> None:
    assert ids(ask(client, item_ids=["i", "j"], features=sent)) == scores


def test_explain_returns_the_outputs_of_which_each_score_is_made(model: Model) -> None:
    engine, client = model.engine, clients.client(model)
    assert isinstance(engine, fullspec.SumEngine)
    plain, explained = ask(client).json(), ask(client, explain=True).json()
    assert engine.inferences == 2  # one each
    assert [p["score"] for p in plain["predictions"]] == [
        p["score"] for p in explained["predictions"]
    ]
    for prediction in explained["predictions"]:
        outputs = prediction["outputs"]
        assert outputs.keys() == {"click", "like"}
        expected = outputs["click"] + 2 * outputs["like"]
        assert prediction["score"] == pytest.approx(expected, rel=1e-6)
    assert "outputs" not in plain["predictions"][0]


def test_an_output_that_is_not_finite_is_null(tmp_path: Path) -> None:
    class Infinite(fullspec.SumEngine):
        def explain(self, inputs: Any, *stopper: Any) -> tuple[FloatArray, FloatArray]:
            scores, outputs = super().explain(inputs, *stopper)
            return scores, np.array([[np.inf, np.nan]] * len(outputs), np.float32)

    client = clients.client(fullspec.model(tmp_path, Infinite()))
    (prediction,) = ask(client, item_ids=["i"], explain=True).json()["predictions"]
    assert prediction["outputs"] == {"click": None, "like": None}


def test_a_model_of_one_output_has_nothing_to_explain() -> None:
    response = clients.client(fakes.model()).post(
        "/predict", json=clients.REQUEST | {"explain": True}
    )
    assert "outputs" not in response.json()["predictions"][0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": {SECRET: [1, 2, 3]}}, "features: 1 unknown; this model reads retrieval_sco"),
        ({"features": {"clip": [[1, 2]]}}, "features.clip: must have one value for each of the 3"),
        ({"features": {"clip": [1, 2, 3]}}, "features.clip: each item's value must be a list"),
        ({"features": {"clip": {SECRET: 1}}}, "features: Input should be a valid array"),
        ({"features": [SECRET]}, "features: Input should be an object"),
        ({"features": {"retrieval_score": [1, 2, SECRET]}}, "retrieval_score: must be numbers"),
        ({"features": {"retrieval_score": [1, 2, True]}}, "retrieval_score: must be numbers"),
        ({"features": {"retrieval_score": [1, 2, [3]]}}, "retrieval_score: must be numbers"),
        ({"features": {"retrieval_score": [1, 2, 10**400]}}, "must be finite 32-bit numbers"),
        ({"features": {"retrieval_score": [1, 2, 1e39]}}, "must be finite 32-bit numbers"),
        ({"features": {"clip": [[1], [2], [float("nan")]]}}, "clip: must be finite 32-bit"),
        ({"features": {"clip": [[1], [2], [float("inf")]]}}, "clip: must be finite 32-bit"),
        ({"explain": "yes"}, "explain: Input should be a valid boolean"),
        ({"explain": 1}, "explain: Input should be a valid boolean"),
        ({"explain": None}, "explain: Input should be a valid boolean"),
        ({"user_id": ""}, "user_id: String should have at least 1 character"),
        ({"user_id": SECRET * 12}, "user_id: String should have at most 128 characters"),
        ({"item_ids": ["i", SECRET * 12]}, "item_ids.1: String should have at most 128"),
        ({"user_id": None}, "user_id: Input should be a valid string"),
        ({"user_id": True}, "user_id: Input should be a valid string"),
        ({"user_id": 5}, f"{TEXTS}; user_id: Input should be a valid string"),
        ({"user_id": 2**70}, f"{TEXTS}; user_id: Input should be a valid string"),
        ({"user_id": 1.5, "explain": 1}, f"{TEXTS}; user_id: Input should be a valid string"),
        ({"item_ids": [1, 2]}, f"{TEXTS}; item_ids.0: Input should be a valid string"),
        ({"item_ids": ["i"] * 101}, "item_ids: at most 100 items"),
    ],
)
def test_what_the_model_does_not_read_is_422_by_name(
    client: TestClient, changes: dict[str, Any], says: str
) -> None:
    body = json.dumps(REQUEST | changes)
    detail = problem(client.post("/predict", content=body), 422)["detail"]
    assert says in detail
    assert SECRET not in detail


@pytest.mark.parametrize("surrogate", ["\\ud800", "\\udfff", "\\ud800\\ud800"])
@pytest.mark.parametrize("where", ["user_id", "item_ids", "features", "key", "context"])
def test_a_lone_surrogate_is_422_wherever_it_stands(
    client: TestClient, surrogate: str, where: str
) -> None:
    texts = dict.fromkeys(["user_id", "item_ids", "features", "key", "context"], "i")
    texts[where] = surrogate
    body = (
        '{{"user_id": "{user_id}", "item_ids": ["{item_ids}"], "context": {{"device": '
        '"{context}"}}, "features": {{"clip{key}": [["{features}"]]}}}}'
    ).format(**texts)
    problem(client.post("/predict", content=body), 422)


@pytest.mark.parametrize("most", [1, 100, 1_000])
def test_the_most_items_are_the_settings(model: Model, most: int) -> None:
    client = clients.client(model, MAX_ITEMS=str(most))
    assert len(ids(ask(client, item_ids=["i"] * most))) == most
    for items in (most + 1, 2_000):  # one of them beyond what any setting allows
        detail = problem(ask(client, item_ids=["i"] * items), 422)["detail"]
        assert detail == f"item_ids: at most {most:,} items"


# The kind of ids, before and while the configured bundle is loaded


def _in(slot: ModelSlot) -> TestClient:
    return TestClient(fakes.app_of(slot), raise_server_exceptions=False)


def _loads_now(model: Model | None, stand_in: Model | None) -> ModelSlot:
    """A slot whose first attempt failed; the first request starts a retry."""
    attempts = iter([None, model])

    def load() -> Model:
        loaded = next(attempts)
        if loaded is None:
            raise BundleError("not there yet")
        return loaded

    clock = fakes.FakeClock()
    fallback = None if stand_in is None else lambda: stand_in
    slot = ModelSlot(load, fallback, retry_s=5.0, clock=clock, start=fakes.at_once)
    slot.load()
    clock.now_s += 6
    return slot


def test_a_request_that_waits_for_the_model_may_have_either_kind(model: Model) -> None:
    numbers = fakes.model()
    assert sorted(ids(ask(_in(_loads_now(model, None))))) == ["i", "j", "nobody"]
    refused = _in(_loads_now(model, None)).post("/predict", json=clients.REQUEST)
    assert TEXTS in problem(refused, 422)["detail"]
    assert NUMBERS in problem(ask(_in(_loads_now(numbers, None))), 422)["detail"]
    served = _in(_loads_now(numbers, None)).post("/predict", json=clients.REQUEST)
    assert sorted(ids(served)) == [10, 20, 30]


def test_a_stand_in_has_its_own_kind(model: Model) -> None:
    def refuse() -> Model:
        raise BundleError("damaged")

    slot = ModelSlot(refuse, lambda: model, 5.0, fakes.FakeClock(), start=fakes.at_once)
    slot.load()
    client = _in(slot)
    response = ask(client)
    assert sorted(ids(response)) == ["i", "j", "nobody"]
    assert response.json()["degraded"] == ["model:layer"]
    refused = client.post("/predict", json=clients.REQUEST)
    assert TEXTS in problem(refused, 422)["detail"]


def test_ids_of_two_kinds_are_422_before_the_model_is_known_too() -> None:
    client = _in(fakes.slot(None))
    mixed = {"user_id": 1, "item_ids": ["i"]}
    detail = problem(client.post("/predict", json=mixed), 422)["detail"]
    assert detail == "user_id: Input should be a valid string"
    whole = {"user_id": "a", "item_ids": ["i"], "features": {"x": [1.0]}}
    problem(client.post("/predict", json=whole), 503)


@pytest.mark.parametrize(
    "changes", [{"user_id": "5"}, {"item_ids": [1, "5"]}, {"user_id": "x", "item_ids": ["y"]}]
)
def test_a_text_for_a_number_is_422_that_says_the_kind(changes: dict[str, Any]) -> None:
    response = clients.client(fakes.model()).post("/predict", json=clients.REQUEST | changes)
    assert problem(response, 422)["detail"].startswith(NUMBERS)


# `explain` and the request's time


class Hanging(fullspec.SumEngine):
    """Its outputs never end unless they are stopped."""

    def explain(
        self, inputs: Mapping[str, FloatArray], *stopper: Any
    ) -> tuple[FloatArray, FloatArray]:
        if stopper:
            assert stopper[0].ended.wait(timeout=30)
            raise ScoringError("stopped")
        raise AssertionError("nothing could stop it")


class Unstoppable:
    """Its outputs never end, as long as a test takes."""

    def __init__(self) -> None:
        self.released = Event()

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        return np.zeros(len(inputs["dense"]), np.float32)

    def explain(self, inputs: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        assert self.released.wait(timeout=30)
        return self.score(inputs), np.zeros((len(inputs["dense"]), 2), np.float32)


@pytest.mark.parametrize("pace", [Pace(), Pace(1e-9, 1e-9)], ids=["slow", "brief"])
@pytest.mark.parametrize(
    "scorer", [InlineScorer, lambda: InlineScorer("server"), BatchingScorer],
    ids=["on Lambda", "inline on a server", "in batches"],
)  # fmt: skip
@pytest.mark.parametrize("engine", [Hanging, Unstoppable])
def test_outputs_that_hang_end_at_the_deadline(
    tmp_path: Path, scorer: Any, engine: Any, pace: Pace
) -> None:
    hanging = engine()
    model = replace(fullspec.model(tmp_path, hanging), pace=pace)
    ranker = Ranker(fakes.slot(model), scorer(), DecisionLog())
    query = Query("ann", ["i"], {}, fullspec.NOW_S, explain=True)
    call = fakes.call(0.2, is_alone=isinstance(scorer(), InlineScorer))

    async def rank() -> None:
        async with asyncio.timeout(20):
            await ranker.rank(query, call)

    with pytest.raises(DeadlineExceededError):
        asyncio.run(rank())
    if isinstance(hanging, Unstoppable):
        hanging.released.set()


@pytest.mark.parametrize("scorer", [InlineScorer(), BatchingScorer()])
def test_an_explained_request_is_measured_and_its_outputs_are_recorded(
    model: Model, scorer: Scorer
) -> None:
    sink = fakes.MemorySink()
    ranker = Ranker(fakes.slot(model), scorer, DecisionLog([sink]))
    query = Query("ann", ["j", "i"], {}, fullspec.NOW_S, explain=True)
    ranking = asyncio.run(ranker.rank(query, fakes.call()))
    assert ranking.scoring_ms > 0
    record = json.loads(sink.lines[0][0])
    assert record["user_id"] == "ann"
    assert record["item_ids"] == ["j", "i"]
    assert record["outputs"].keys() == {"click", "like"}
    weighted = [click + 2 * like for click, like in zip(*record["outputs"].values(), strict=True)]
    assert record["scores"] == pytest.approx(weighted, rel=1e-6)


@pytest.mark.parametrize("explain", [True, False])
@pytest.mark.parametrize("setting", ["always", "explained"])
def test_outputs_are_recorded_always_or_where_they_are_explained(
    model: Model, setting: str, *, explain: bool
) -> None:
    sink = fakes.MemorySink()
    client = TestClient(fakes.app(model, sink, RECORD_OUTPUTS=setting))
    predictions = ask(client, explain=explain).json()["predictions"]
    assert ("outputs" in predictions[0]) == explain
    outputs = json.loads(sink.lines[0][0])["outputs"]
    assert (outputs is not None) == (explain or setting == "always")


CLIPS = st.none() | st.lists(st.integers(-9, 9), max_size=4)
REQUESTS = st.integers(1, 4).flatmap(
    lambda items: st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["ann", "bob"]),
            "item_ids": _lists(st.sampled_from(["i", "j", "new"]), items),
            "features": st.fixed_dictionaries(
                {"clip": _lists(CLIPS, items)},
                optional={
                    "retrieval_score": _lists(st.floats(-1e6, 1e6, width=32) | st.none(), items)
                },
            ),
            "context": st.fixed_dictionaries(
                {},
                optional={
                    "device": st.sampled_from(["tv", "phone", SECRET]),
                    "recent": st.lists(st.sampled_from(["x", "y", " z", SECRET])).map(",".join),
                    "timestamp": st.sampled_from(["2026-03-29T01:30+14:00", "0001-01-01T00Z"]),
                },
            ),
        }
    )
)


def _lists(cells: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(cells, min_size=size, max_size=size)


@pytest.fixture(scope="module")
def full_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return fullspec.model(tmp_path_factory.mktemp("full"))


@given(REQUESTS)
def test_a_decision_can_be_made_again_from_its_record(
    full_model: Model, request_: dict[str, Any]
) -> None:
    """And holds no text that the bundle doesn't list."""
    sink = fakes.MemorySink()
    client = TestClient(fakes.app(full_model, sink))
    ids(client.post("/predict", json=request_))
    line = sink.lines[-1][0]
    assert SECRET.encode() not in line
    record = json.loads(line)
    again = {
        "user_id": record["user_id"],
        "item_ids": record["item_ids"],
        "features": json.loads(record["features"]),
        "context": {"timestamp": record["feature_time"]}
        | {key: text for key, text in record["context"].items() if text is not None},
    }
    ids(client.post("/predict", json=again))
    repeated = json.loads(sink.lines[-1][0])
    same = ("scores", "ranks", "feature_time", "features", "unknown")
    assert [repeated[name] for name in same] == [record[name] for name in same]
