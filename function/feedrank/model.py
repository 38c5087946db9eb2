"""The container's one model: loaded once, proven before it serves, tried again when refused."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np

from feedrank import documents
from feedrank.bundle import (
    GOLDEN,
    ONNX_MODEL,
    SNAPSHOT,
    TORCH_MODEL,
    Manifest,
    fetch_bundle,
)
from feedrank.domain import MAX_ID, MAX_ITEMS, FeatureRows, FloatArray, Query
from feedrank.engine import ScoringEngine
from feedrank.errors import BundleError, FeedrankError, ModelUnavailableError
from feedrank.features import FeatureStore
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import parse_spec
from feedrank.settings import Settings
from feedrank.telemetry import logger

MB_PER_VCPU = 1_769
GOLDEN_TOLERANCE = 1e-5
MOST_GOLDEN_CASES = 100
LATEST_TIME_S = 253_402_300_799.0  # the end of the year 9999
LONGEST_RETRY_S = 300.0
FALLBACK = "model:layer"  # how `degraded` names it
ENGINE_FILES = {"onnx": ONNX_MODEL, "torch": TORCH_MODEL}


@dataclass(slots=True)
class Pace:
    """The least that runs of one model have taken: others can only have made them longer."""

    run_s: float = math.inf
    item_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Model:
    """What a request needs. `degraded` says what stands in for the real thing."""

    manifest: Manifest
    features: FeatureStore
    matrix: MatrixBuilder
    engine: ScoringEngine
    loaded_at: datetime
    degraded: tuple[str, ...] = ()
    pace: Pace = field(default_factory=Pace, compare=False)

    def score(self, query: Query, rows: FeatureRows) -> FloatArray:
        """(items,) float32. Raises InvalidRequestError, ScoringError."""
        return self.engine.score(self.matrix.build(query, rows))


def load_model(uri: str, digest: str, settings: Settings) -> Model:
    """Fetch a bundle, verify every byte, build its engine, hold it against its golden scores.

    Raises BundleError or SpecError. The golden requests also warm the engine up.
    """
    engine_file = ENGINE_FILES[settings.model_engine]
    bundle = fetch_bundle(uri, digest, settings.model_cache_dir, [engine_file, SNAPSHOT, GOLDEN])
    spec = parse_spec(bundle.manifest.feature_spec)
    snapshot = SnapshotStore(bundle.files[SNAPSHOT], spec)
    model = Model(
        manifest=bundle.manifest,
        features=snapshot,
        matrix=MatrixBuilder(spec),
        engine=_engine(settings, bytes(bundle.files[engine_file])),
        loaded_at=datetime.now(UTC),
    )
    for query, expected in _golden_cases(bytes(bundle.files[GOLDEN])):
        _hold_against(model, snapshot, query, expected)
    return model


class ModelSlot:
    """Holds the model; while there is none, a request past the pause tries again."""

    def __init__(
        self,
        load: Callable[[], Model],
        fallback: Callable[[], Model] | None,
        retry_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._fallback = fallback
        self._clock = clock
        self._first_retry_s = self._pause_s = retry_s
        self._retry_at = 0.0
        self._complete = False
        self._model: Model | None = None

    def model(self) -> Model:
        """Raises ModelUnavailableError, with the seconds until the next try."""
        if not self._complete and self._clock() >= self._retry_at:
            self.load()
        if self._model is None:
            wait_s = max(1, round(self._retry_at - self._clock()))
            raise ModelUnavailableError("no bundle could be loaded; see the log", wait_s)
        return self._model

    @property
    def waits(self) -> bool:
        """Whether a request could wait for something: a store's answer, or a load that might bring
        a store which does."""
        return not self._complete or self._model is None or self._model.features.waits

    def load(self) -> None:
        """Try once. A refusal is logged, never raised: init must not crash and loop."""
        try:
            self._model = self._load()
        except Exception as error:  # noqa: BLE001 whatever it is
            logger.error("model refused", reason=_reason(error), retry_in_s=self._pause_s)
            self._retry_at = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_RETRY_S)
            if self._model is None and self._fallback:
                self._model = self._fall_back(self._fallback)
        else:
            self._complete = True
            logger.info("model loaded", extra=_described(self._model))

    def prove(self) -> None:
        """Raises ModelUnavailableError unless the very bundle that was asked for is loaded."""
        if not self._complete:
            self.load()
        if not self._complete:
            raise ModelUnavailableError("the bundle could not be loaded; see the log")

    @staticmethod
    def _fall_back(fallback: Callable[[], Model]) -> Model | None:
        try:
            model = replace(fallback(), degraded=(FALLBACK,))
        except Exception as error:  # noqa: BLE001 whatever it is
            logger.error("fallback model refused", reason=_reason(error))
            return None
        logger.warning("fallback model loaded", extra=_described(model))
        return model


def threads_for(settings: Settings) -> int:
    """One thread per full vCPU of the function's memory size (AWS: 1,769 MB each)."""
    memory_mb = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0"))
    return settings.engine_threads or max(1, memory_mb // MB_PER_VCPU)


def _engine(settings: Settings, program: bytes) -> ScoringEngine:
    threads = threads_for(settings)
    if settings.model_engine == "torch":
        from feedrank.engine.torch import TorchEngine

        return TorchEngine(BytesIO(program), threads)
    from feedrank.engine.onnx import OnnxEngine

    return OnnxEngine(program, threads)


def _golden_cases(raw: bytes) -> list[tuple[Query, FloatArray]]:
    return [_golden_case(case) for case in documents.read(raw, GOLDEN, _GOLDEN)["cases"]]


def _golden_case(case: dict[str, Any]) -> tuple[Query, FloatArray]:
    query = Query(
        user_id=case["user_id"],
        item_ids=np.array(case["item_ids"], dtype=np.int64),
        context=case["context"],
        time_s=case["time_s"],
    )
    return query, np.array(case["scores"], dtype=np.float32)


_id = documents.whole(0, MAX_ID)
_GOLDEN = documents.fields(
    {
        "cases": documents.many(
            documents.fields(
                {
                    "user_id": _id,
                    "item_ids": documents.many(_id, 1, MAX_ITEMS),
                    "context": documents.mapping(documents.text(), documents.text()),
                    "time_s": documents.number(0, LATEST_TIME_S),
                    "scores": documents.many(documents.number(), 1, MAX_ITEMS),
                }
            ),
            1,
            MOST_GOLDEN_CASES,
        )
    }
)


def _hold_against(
    model: Model, snapshot: SnapshotStore, query: Query, expected: FloatArray
) -> None:
    scores = model.score(query, snapshot.look_up(query))
    if scores.shape != expected.shape:
        raise BundleError(f"{GOLDEN}: {len(expected)} scores for {len(scores)} items")
    if not (scores.min() >= 0.0 and scores.max() <= 1.0):  # NaN is not
        raise BundleError(f"{GOLDEN}: the model gives a score outside [0, 1]")
    apart = float(np.max(np.abs(scores - expected)))
    if not apart <= GOLDEN_TOLERANCE:
        raise BundleError(f"{GOLDEN}: scores are {apart:.1e} from the expected ones")


def _reason(error: Exception) -> str:
    ours = isinstance(error, FeedrankError)
    return str(error) if ours else f"{type(error).__name__}: {error}"


def _described(model: Model) -> dict[str, str]:
    return {"model_version": model.manifest.model_version, "digest": model.manifest.digest}
