"""A model, loaded from a bundle and tested before it serves."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO

from feedrank.bundle.fetch import ENGINE_FILES, Bundle, fetch_served
from feedrank.bundle.layout import GOLDEN, SNAPSHOT, Manifest
from feedrank.domain import MAX_BATCH_ITEMS, FeatureRows, FloatArray, Query
from feedrank.features import FeatureStore, StoreChain
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import ContextKeys
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec
from feedrank.model import inference
from feedrank.model.engines import ScoringEngine
from feedrank.model.self_test import bounded_memory, check_golden
from feedrank.settings import Settings, function_memory_mb, is_lambda

MB_PER_VCPU = 1_769


@dataclass(slots=True)
class Pace:
    """The shortest inference of one model: other work on the machine only makes them longer."""

    run_s: float = math.inf
    item_s: float = math.inf

    def note(self, duration_s: float, items: int) -> None:
        self.run_s = min(self.run_s, duration_s)
        self.item_s = min(self.item_s, duration_s / items)

    def forget(self) -> None:
        self.run_s = self.item_s = math.inf

    def is_within(self, limit_s: float, items: int) -> bool:
        return self.run_s < limit_s and self.item_s * items < limit_s


@dataclass(frozen=True, slots=True)
class Model:
    """What a request needs. `degraded` names what replaces the configured bundle."""

    manifest: Manifest
    spec: FeatureSpec
    features: FeatureStore
    matrix: MatrixBuilder
    context: ContextKeys
    candidates: CandidateFeatures
    engine: ScoringEngine
    loaded_at: datetime
    degraded: tuple[str, ...] = ()
    stores: tuple[FeatureStore, ...] = ()  # from the snapshot to `features`, which wraps the others
    pace: Pace = field(default_factory=Pace, compare=False)

    def score(self, query: Query, rows: FeatureRows, deadline_s: float = math.inf) -> FloatArray:
        """(items,) float32. Raises InvalidRequestError, ScoringError or DeadlineExceededError."""
        return inference.score(self.engine, self.matrix.build(query, rows), deadline_s, "self_test")


def _snapshot_alone(snapshot: FeatureStore, _spec: FeatureSpec) -> tuple[FeatureStore, ...]:
    return (snapshot,)


def load_model(
    uri: str,
    digest: str,
    settings: Settings,
    stores_of: StoreChain = _snapshot_alone,
    fetch: Callable[[], Bundle] | None = None,
) -> Model:
    """Fetches a bundle, verifies every byte, builds its engine, compares it with its golden scores.

    `fetch` does the first two steps where they have begun before.
    `stores_of` builds stores around the bundle's snapshot; requests read the outermost. The golden
    scores belong to the snapshot's own features, so the self-test reads those.
    Raises BundleError, SpecError, or what `stores_of` raises. The golden requests also warm up the
    engine.
    """
    bundle = fetch() if fetch else fetch_served(uri, digest, settings)
    spec = parse_spec(bundle.manifest.feature_spec)
    snapshot = SnapshotStore(bundle.files[SNAPSHOT], spec, bundle.manifest.snapshot_as_of_s)
    program = bytes(bundle.files[ENGINE_FILES[settings.model_engine]])
    stores = stores_of(snapshot, spec)
    # CUDA maps more memory than any useful limit.
    may_use_gpu = settings.model_engine == "torch" or settings.engine_device == "cuda"
    memory = nullcontext() if may_use_gpu else bounded_memory(len(program))
    with memory:
        model = Model(
            manifest=bundle.manifest,
            spec=spec,
            features=stores[-1],
            stores=stores,
            matrix=MatrixBuilder(spec, snapshot.vocabularies, check_tables=len(stores) > 1),
            context=ContextKeys(spec, snapshot.vocabularies),
            candidates=CandidateFeatures(spec, snapshot.vocabularies),
            engine=_engine(settings, program, bundle.manifest),
            loaded_at=datetime.now(UTC),
        )
        golden = bytes(bundle.files[GOLDEN])

        def score(query: Query, deadline_s: float) -> FloatArray:
            if query.candidates:
                sent = model.candidates.read(query.candidates, len(query.item_ids))
                query = query._replace(candidates=sent)
            return model.score(query, snapshot.look_up(query), deadline_s)

        check_golden(golden, score, spec.range)
    return model


def threads_for(settings: Settings) -> int:
    """One thread per full vCPU of the function's memory size (AWS: 1,769 MB each)."""
    memory_mb = function_memory_mb()
    return settings.engine_threads or max(1, memory_mb // MB_PER_VCPU)


def _engine(settings: Settings, program: bytes, manifest: Manifest) -> ScoringEngine:
    threads, device = threads_for(settings), settings.engine_device
    if settings.model_engine == "torch":
        from feedrank.model.engines.torch import TorchEngine

        batched = 0 if is_lambda() or not manifest.batches else MAX_BATCH_ITEMS
        return TorchEngine(BytesIO(program), threads, device, batched + settings.max_items)
    from feedrank.model.engines.onnx import OnnxEngine

    return OnnxEngine(program, threads, device)
