"""The composition root: settings -> model, decision log -> app -> adapter.

All of it runs once per container, at init. `lambda_handler` is for Lambda, `app` is the same app
for uvicorn.
"""

import asyncio
import gc
import logging
import os
from functools import partial
from time import perf_counter
from typing import Any

from feedrank.settings import init_type, is_lambda, load_settings

settings = load_settings()  # before libraries read the environment

gc.disable()  # during init: it would find next to nothing, and take a tenth of the time

from feedrank.bundle.early import EarlyFetch
from feedrank.bundle.fetch import fetch_served

fetch = EarlyFetch(partial(fetch_served, settings.model_uri, settings.model_digest, settings))

from mangum.types import LambdaContext
from starlette.types import ASGIApp

from feedrank import shortcuts
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.record_ids import user_hash
from feedrank.decisions.sinks import sinks_of
from feedrank.extensions import load_extensions
from feedrank.features.stores import stores_of
from feedrank.http.app import create_app
from feedrank.http.fast_path import Cycle
from feedrank.http.lambda_adapter import Adapter
from feedrank.http.observer import Observer
from feedrank.http.problems import PROBLEM_JSON
from feedrank.model.inference import watchdog
from feedrank.model.load import load_model
from feedrank.model.slot import ModelSlot
from feedrank.ranking.pipeline import Ranker
from feedrank.ranking.scorer import InlineScorer, Scorer
from feedrank.telemetry.container import ContainerStats
from feedrank.telemetry.logging import configure, logger
from feedrank.telemetry.metrics import count_init
from feedrank.telemetry.tracing import NoTracing, XRayTracing

TEXT_TYPES = ["text/", "application/json", PROBLEM_JSON, "application/openmetrics-text"]

_started_s = perf_counter()
configure(settings)
for doubt in settings.doubts():
    logger.warning("doubtful setting", reason=doubt)
tracing = XRayTracing(settings.service_name) if settings.tracing == "on" else NoTracing()
stats = ContainerStats()
extensions = load_extensions(settings.extensions, sagemaker=settings.sagemaker == "on")
load = partial(load_model, settings=settings, stores_of=stores_of(settings, extensions.store_chain))
slot = ModelSlot(
    load=partial(load, settings.model_uri, settings.model_digest, fetch=fetch),
    fallback=(
        partial(load, str(settings.model_layer_dir), "")
        if settings.model_fallback == "layer"
        else None
    ),
    retry_s=settings.model_retry_seconds,
    load_s=settings.model_load_seconds,
)
decision_log = DecisionLog([*sinks_of(settings), *extensions.sinks], user_hash(settings))


def _ranker(scorer: Scorer) -> Ranker:
    return Ranker(
        slot,
        scorer,
        decision_log,
        tracing,
        strict=settings.context_check == "strict",
        record_outputs=settings.record_outputs == "always",
        keep_order=settings.order_without_features == "caller",
        stages=extensions.stages,
    )


def _app(ranker: Ranker) -> Observer:
    app = create_app(
        settings,
        slot,
        ranker,
        stats,
        routers=extensions.routers,
        dependencies=extensions.dependencies,
        middleware=extensions.middleware,
    )
    return Observer(app, stats, settings)


def app() -> ASGIApp:
    """For a web server, which serves requests side by side: uvicorn calls this once."""
    from feedrank.ranking.batching import BatchingScorer  # Lambda has no use for it

    os.register_at_fork(after_in_child=slot.close)
    server = _app(_ranker(BatchingScorer() if shortcuts.BATCHING else InlineScorer("server")))
    if settings.sagemaker == "off":
        return server
    from feedrank.http.sagemaker import TraceAttributes

    return TraceAttributes(server)


ranker = _ranker(InlineScorer())  # Lambda sends a process one request at a time
lambda_app = _app(ranker)
slot.load()

logging.getLogger("mangum").setLevel(logging.WARNING)  # at INFO it logs each request, as we do
asyncio.set_event_loop(asyncio.new_event_loop())  # Mangum wants one that nothing has closed
_adapter = Adapter(lambda_app, TEXT_TYPES, Cycle)
if is_lambda() and (extensions.routers or extensions.middleware):
    _adapter.start()  # a web server does so by itself
count_init(init_type(), 1_000 * (perf_counter() - _started_s))


def _respond_before_exit() -> None:
    from feedrank.http import last_response  # which hardly any process needs

    last_response.post(_adapter, lambda_app)


watchdog.before_exit = _respond_before_exit
if init_type() == "snap-start":
    from feedrank import snapstart

    snapstart.register(slot, stats, decision_log, _adapter)
gc.freeze()  # what init made stays: a collection need not look at it again
gc.enable()


@tracing.handler
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Serves HTTP API v2, REST API v1, Function URL and ALB events, and pings."""
    return _adapter(event, context)
