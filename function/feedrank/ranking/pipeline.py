"""The request as one paragraph."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import compress
from time import perf_counter
from typing import Any

import numpy as np
import orjson

from feedrank.decisions.log import DecisionLog
from feedrank.domain import NO_CONTEXT, Call, FeatureRows, FloatArray, Query, Ranking
from feedrank.errors import DeadlineExceededError, InvalidRequestError, ScoringError
from feedrank.features import FeatureStore
from feedrank.features.expressions import FLOAT32_MAX
from feedrank.features.spec import IDS_ARE, PROBABILITY
from feedrank.model.engines import Explaining, can_explain
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot
from feedrank.ranking.scorer import Scorer
from feedrank.ranking.stages import RankingStage, Scored, apply_stages
from feedrank.telemetry.tracing import NoTracing, Tracing

CALLERS_ORDER = "order:caller"
FINITE = (-FLOAT32_MAX, FLOAT32_MAX)


class Ranker:
    def __init__(
        self,
        slot: ModelSlot,
        scorer: Scorer,
        log: DecisionLog,
        tracing: Tracing | None = None,
        *,
        strict: bool = True,
        record_outputs: bool = False,
        keep_order: bool = False,
        stages: Sequence[RankingStage] = (),
    ) -> None:
        """`strict` refuses a context that has what the model doesn't read. `record_outputs` keeps
        the model's outputs of every request, which then shares no batch with others. `keep_order`
        leaves the items in the caller's order where a store has lost all that is known of them."""
        self._slot = slot
        self._scorer = scorer
        self._log = log
        self._span = (tracing or NoTracing()).span
        self._strict = strict
        self._record_outputs = record_outputs
        self._keep_order = keep_order
        self._stages = stages
        self._stage_names = tuple(stage.name for stage in stages)

    @property
    def waits(self) -> bool:
        """Whether a request may wait, and so needs an event loop."""
        return self._slot.waits or self._scorer.waits

    async def rank(self, query: Query, call: Call) -> Ranking:
        """Raises any RequestError but RequestTooLargeError and MalformedEventError."""
        model = self._slot.ready
        if model is None:
            model, call = await self._wait_for_model(call)
        if (type(query.user_id) is str) != (model.spec.ids == "text"):
            raise InvalidRequestError(f"user_id, item_ids: {IDS_ARE[model.spec.ids]}")
        warnings = self._check(model, query) if query.context else ()
        features = None
        if query.candidates:
            sent = query.candidates
            candidates = model.candidates.read(query.candidates, len(query.item_ids))
            features = model.candidates.recorded(sent)
            query = query._replace(candidates=candidates)
        started_s = perf_counter()
        with self._span("features"):
            rows = await _fetch(model.features, query, call)
        fetched_s = perf_counter()
        with self._span("scoring"):
            explaining = _explaining(model) if query.explain or self._record_outputs else None
            scorable = replace(model, engine=explaining) if explaining else model
            scores, order = best_first(
                await self._scorer.score(scorable, query, rows, call), model.spec.range
            )
        scored_s = perf_counter()
        degraded = model.degraded + rows.degraded
        if self._keep_order and rows.sources and rows.sources.all_lost:
            order, degraded = [*range(len(scores))], (*degraded, CALLERS_ORDER)
        unknown_items = int(np.count_nonzero(rows.unknown_items))
        if unknown_items and model.spec.unknown_items != "default":
            order = known_first(order, rows, drop=model.spec.unknown_items == "drop")
        if self._stages:
            order = apply_stages(self._stages, Scored(query, rows, scores, order, model.spec))
        outputs = _outputs(model, explaining.outputs) if explaining else None
        context, dropped = NO_CONTEXT, 0
        if query.context:
            context, dropped = model.context.recorded(query.context)
        now = datetime.fromtimestamp(call.time_s, UTC)
        ranking = Ranking(
            query=query,
            call=call,
            timestamp=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            model_version=model.manifest.model_version,
            model_digest=model.manifest.short_digest,
            scores=scores,
            order=order,
            degraded=degraded,
            unknown_users=int(rows.unknown_user),
            unknown_items=unknown_items,
            features_ms=_milliseconds(fetched_s - started_s),
            scoring_ms=_milliseconds(scored_s - fetched_s),
            latency_ms=_milliseconds(perf_counter() - call.started_s),
            unknown=_unknown(query, rows) if rows.unknown_user or unknown_items else None,
            warnings=warnings,
            snapshot_age_s=model.manifest.snapshot_age_s(call.time_s),
            context=context,
            context_dropped=dropped,
            stages=self._stage_names,
            features=features,
            outputs=outputs,
            row_sources=rows.sources,
        )
        spilled = await self._log.record(ranking)
        return ranking._replace(spilled=spilled) if spilled else ranking

    async def _wait_for_model(self, call: Call) -> tuple[Model, Call]:
        """A request that waited for the first model has its budget once more, within Lambda's."""
        model = await self._slot.wait_for_model(call)
        if call.limit_s and perf_counter() > call.deadline_s:
            budget_s = call.deadline_s - call.started_s
            call = call._replace(deadline_s=min(perf_counter() + budget_s, call.limit_s))
        return model, call

    def _check(self, model: Model, query: Query) -> tuple[str, ...]:
        problems = model.context.problems(query.context)
        if problems and self._strict:
            raise InvalidRequestError("; ".join(problems))
        return tuple(problems)


def best_first(
    scores: FloatArray, range_: tuple[float, float] | None = PROBABILITY
) -> tuple[list[float], list[int]]:
    """The scores as the response shows them, and their positions, best first; equal scores keep
    the caller's order. Each score is the shortest decimal that reads back as the same float32, so
    the order follows from the response. Raises ScoringError where one is outside the range, or is
    not finite."""
    scores = np.ascontiguousarray(scores, dtype=np.float32)
    order: list[int] = (-scores).argsort(kind="stable").tolist()
    low, high = range_ or FINITE
    if not (scores.item(order[0]) <= high and scores.item(order[-1]) >= low):  # NaN sorts last
        raise ScoringError(f"the model gave a score outside [{low:g}, {high:g}]")
    decimals: list[float] = orjson.loads(orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY))
    return decimals, order


def known_first(order: list[int], rows: FeatureRows, *, drop: bool) -> list[int]:
    """Known items before the unknown ones, which are left out with `drop`; each part stays in the
    order of its scores."""
    unknown = rows.unknown_items.tolist()
    known = [at for at in order if not unknown[at]]
    return known if drop else known + [at for at in order if unknown[at]]


def _unknown(query: Query, rows: FeatureRows) -> dict[str, Any]:
    """An item that the request names twice stands here once."""
    items = compress(query.item_ids, rows.unknown_items.tolist())
    return {"user": rows.unknown_user, "items": list(dict.fromkeys(items))}


def _explaining(model: Model) -> Explaining | None:
    """None where a model's one output is its score."""
    engine = model.engine
    return Explaining(engine) if model.spec.outputs and can_explain(engine) else None


def _outputs(model: Model, outputs: FloatArray) -> dict[str, list[float | None]]:
    """By name (items,), as decimals like the scores; None where one is not finite."""
    columns = np.ascontiguousarray(outputs.T, dtype=np.float32)
    decimals = orjson.loads(orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY))
    return dict(zip(model.spec.output_names, decimals, strict=True))


def _fetch(store: FeatureStore, query: Query, call: Call) -> Awaitable[FeatureRows]:
    return _in_time(store, query, call) if store.waits else store.fetch(query, call.deadline_s)


async def _in_time(store: FeatureStore, query: Query, call: Call) -> FeatureRows:
    try:
        async with asyncio.timeout(call.deadline_s - perf_counter()):
            return await store.fetch(query, call.deadline_s)
    except TimeoutError as error:
        raise DeadlineExceededError("the feature store took too long") from error


def _milliseconds(seconds: float) -> float:
    return round(1_000 * seconds, 3)
