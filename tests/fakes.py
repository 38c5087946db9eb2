"""Stand-ins for what is slow, remote or needs a file: clock, model, sinks, Lambda's context."""

import asyncio
import gc
import importlib.util
import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import perf_counter
from types import ModuleType
from typing import Any, TextIO, cast

import numpy as np
import orjson
import pytest

from feedrank import snapstart
from feedrank.bundle.layout import Manifest
from feedrank.decisions.log import ONE_LINE, DecisionLog
from feedrank.decisions.record import decision
from feedrank.decisions.sinks import DecisionRecord, DecisionSink
from feedrank.domain import Call, FeatureRows, FloatArray, Query, Ranking
from feedrank.errors import BundleError
from feedrank.features import FeatureStore
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import ContextKeys
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.http.app import create_app
from feedrank.http.fast_path import run_through
from feedrank.http.observer import Observer
from feedrank.model.engines import ScoringEngine
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot
from feedrank.ranking.batching import BatchingScorer
from feedrank.ranking.pipeline import Ranker
from feedrank.settings import Settings
from feedrank.telemetry.container import ContainerStats
from feedrank.telemetry.logging import configure, logger

NOON = datetime(2026, 11, 22, 12, 0, 0, 123_000, tzinfo=UTC)  # a Sunday
LogLines = Callable[[], list[dict[str, Any]]]
HANDLER = Path(__file__).parents[1] / "function" / "handler.py"
SMALL_SPEC: dict[str, Any] = {
    "inputs": [
        {
            "name": "features",
            "features": [
                {"name": "likes", "source": "user", "default": 0.25},
                {"name": "price", "source": "item", "default": 0.5},
                {"name": "seen", "source": "pair", "default": 0.0},
                {"name": "hour", "source": "context", "expression": "hour"},
                {"name": "temp", "source": "context", "expression": "number(temp)"},
            ],
        }
    ]
}


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class FakeStore:
    """Has user 1 and the items below 100, each at a price of a thousandth of its id."""

    waits = False

    def __init__(self, degraded: tuple[str, ...] = ()) -> None:
        self._degraded = degraded

    async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
        item_ids = np.array(query.item_ids)
        known = item_ids < 100
        prices = np.where(known, item_ids / 1_000, 0.5).astype(np.float32)
        return FeatureRows(
            user=np.array([0.25], np.float32),
            items=prices.reshape(-1, 1),
            pairs=np.zeros((len(prices), 1), np.float32),
            unknown_user=query.user_id != 1,
            unknown_items=~known,
            degraded=self._degraded,
        )


class PriceEngine:
    """An item's score is its price."""

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        return inputs["features"][:, 1]


class Stopper:
    """ONNX Runtime's `RunOptions`, with an event to wait for."""

    def __init__(self) -> None:
        self.ended = Event()

    @property
    def terminate(self) -> bool:
        return self.ended.is_set()

    @terminate.setter
    def terminate(self, _: bool) -> None:
        self.ended.set()


class RaisingEngine:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        raise self._error


@dataclass
class MemorySink(DecisionSink):
    """Keeps lines and days."""

    lines: list[tuple[bytes, str]] = field(default_factory=list)

    def write(self, record: DecisionRecord) -> None:
        self.lines.append((record.line, record.day))


class FullDisk(DecisionSink):
    """Refuses every record."""

    def write(self, record: DecisionRecord) -> None:
        raise OSError(28, "No space left on device")


@dataclass
class FakeStream(DecisionSink):
    """Takes the place of standard output, or refuses every record."""

    replaces_output = True
    refuses: bool = False
    lines: list[bytes] = field(default_factory=list)

    def write(self, record: DecisionRecord) -> None:
        if self.refuses:
            raise OSError("decisions responds with ServiceUnavailableException")
        self.lines.append(record.line)


class LambdaContext:
    function_name = "feedrank"
    memory_limit_in_mb = 1_769
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def __init__(self, remaining_ms: int = 10_000) -> None:
        self._remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._remaining_ms


def http_event(method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
    """A small event of an HTTP API; tests of events have complete ones."""
    http = {"method": method, "path": path, "sourceIp": "192.0.2.1"}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {"requestId": "r", "http": http},
        "body": orjson.dumps(body).decode(),
        "isBase64Encoded": False,
    }


def small_spec() -> FeatureSpec:
    return parse_spec(SMALL_SPEC)


def manifest(version: str = "3", *, batches: bool = True) -> Manifest:
    return Manifest(
        name="feed_ranker",
        version=version,
        run_id="0123456789abcdef",
        network="deep_mlp",
        trained_at="2026-11-20T06:00:00Z",
        snapshot_as_of="2026-11-20T00:00:00Z",
        published_at="2026-11-21T08:30:00Z",
        batches=batches,
        metrics={"test/model/auc": 0.75},
        feature_spec=SMALL_SPEC,
        built_with={"torch": "2.13.0"},
        files={},
        digest="d" * 64,
    )


def model(
    engine: ScoringEngine | None = None,
    store: FeatureStore | None = None,
    degraded: tuple[str, ...] = (),
    version: str = "3",
    *,
    batches: bool = True,
    **spec: Any,
) -> Model:
    """Serves `SMALL_SPEC`, with the keys of `spec` replaced."""
    parsed = parse_spec(SMALL_SPEC | spec)
    return Model(
        manifest=manifest(version, batches=batches),
        spec=parsed,
        features=store or FakeStore(),
        matrix=MatrixBuilder(parsed),
        context=ContextKeys(parsed),
        candidates=CandidateFeatures(parsed),
        engine=engine or PriceEngine(),
        loaded_at=NOON,
        degraded=degraded,
    )


def at_once(work: Callable[[], None]) -> None:
    """Stands in for the slot's thread: a load ends before the request goes on."""
    work()


def slot(loaded: Model | None) -> ModelSlot:
    """A slot that has loaded this model, or failed to load any."""

    def load() -> Model:
        if loaded is None:
            raise BundleError("serving/model.onnx: SECRET is not what it says")
        return loaded

    model_slot = ModelSlot(load, fallback=None, retry_s=5.0, clock=FakeClock())
    model_slot.load()
    return model_slot


def settings(**variables: str) -> Settings:
    return Settings.from_environment({"MODEL_URI": "/nowhere", **variables})


def call(budget_s: float = 60.0, *, is_alone: bool = True, limit_s: float | None = None) -> Call:
    """`budget_s` is the request's own time, `limit_s` Lambda's; both from now on."""
    now = perf_counter()
    limit_s = 0.0 if limit_s is None else now + limit_s
    return Call("req-1", NOON.timestamp(), now, now + budget_s, is_alone, limit_s=limit_s)


def query(user_id: int = 1, items: Sequence[int] = (10, 30, 20), **context: str) -> Query:
    return Query(user_id, list(items), context, NOON.timestamp())


def ranking(request_id: str = "req-1", **changes: Any) -> Ranking:
    values: dict[str, Any] = {
        "query": query(),
        "call": call()._replace(request_id=request_id),
        "timestamp": "2026-11-22T12:00:00.123Z",
        "model_version": "feed_ranker-3",
        "model_digest": "dddddddddddd",
        "scores": [0.01, 0.03, 0.02],
        "order": [1, 2, 0],
        "degraded": (),
        "unknown_users": 0,
        "unknown_items": 0,
        "features_ms": 0.1,
        "scoring_ms": 0.2,
        "latency_ms": 1.5,
    }
    return Ranking(**values | changes)


def recorded(ranking: Ranking) -> dict[str, Any]:
    """The decision record, read from its line."""
    record: dict[str, Any] = orjson.loads(orjson.dumps(decision(ranking), None, ONE_LINE))
    return record


def record(log: DecisionLog, ranking: Ranking) -> int:
    """The number of sinks that refused it, without an event loop."""
    return run_through(log.record(ranking))


def app(loaded: Model | None, *sinks: DecisionSink, **env: str) -> Observer:
    """The app as `handler.py` composes it, around this model."""
    return app_of(slot(loaded), *sinks, **env)


def app_of(model_slot: ModelSlot, *sinks: DecisionSink, **env: str) -> Observer:
    config, stats = settings(**env), ContainerStats()
    configure(config)
    ranker = Ranker(
        model_slot,
        BatchingScorer(),
        DecisionLog(sinks),
        strict=config.context_check == "strict",
        record_outputs=config.record_outputs == "always",
        keep_order=config.order_without_features == "caller",
    )
    api = create_app(config, model_slot, ranker, stats)
    return Observer(api, stats, config, clock=NOON.timestamp)


_loops: list[asyncio.AbstractEventLoop | None] = [None]


@contextmanager
def container(**env: str) -> Iterator[ModuleType]:
    """`function/handler.py`, imported anew under another name, as in a new container."""
    spec = importlib.util.spec_from_file_location("handler_under_test", HANDLER)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in env.items():
            environment.setenv(name, value)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            gc.enable()  # the process goes on, unlike a container
            raise
        loop = asyncio.get_event_loop()  # the handler's, made for Mangum
        _loops.append(loop)
        try:
            yield module
        finally:
            _loops.remove(loop)
            loop.close()
            asyncio.set_event_loop(_loops[-1])


def restore(handler: ModuleType) -> None:
    """What a container of `handler.py` does after a SnapStart restore."""
    snapstart.after_restore(handler.slot, handler.stats, handler.decision_log, handler._adapter)


class StandardOutput(io.StringIO):
    """Writes to the current `sys.stdout`, which pytest replaces for each test."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)


@contextmanager
def log_to(stream: TextIO) -> Iterator[None]:
    """Sends the function's log to this stream, from DEBUG up."""
    handler = cast("logging.StreamHandler[TextIO]", logger.registered_handler)
    before, level = handler.stream, logger.log_level
    handler.setStream(stream)
    logger.setLevel("DEBUG")
    try:
        yield
    finally:
        logger.setLevel(level)
        handler.setStream(before)
