"""The container's one model: loaded at init, and loaded again later if it was refused."""

import asyncio
import atexit
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import RLock, Thread
from time import perf_counter

from feedrank.domain import Call
from feedrank.errors import FeedrankError, ModelUnavailableError
from feedrank.model.load import Model
from feedrank.settings import MAX_RETRY_S
from feedrank.telemetry.logging import logger

LOAD_S = 8.0  # of the ten seconds that Lambda gives init
FALLBACK_S = 2.0  # the rest of them
EXIT_S = 2.0  # that the process waits for a load before it ends
RETRY_SHARE = 0.5  # of its time: what a request on Lambda waits for the retry that it starts
FALLBACK = "model:layer"  # its name in `degraded`
FORKED = (
    "this process was forked from the one that loaded the model, and has none of its threads: "
    "let each worker load it, as uvicorn's do and gunicorn's without --preload"
)


class ModelSlot:
    """Holds the model. A refused one is loaded again in a thread, while requests are served."""

    def __init__(
        self,
        load: Callable[[], Model],
        fallback: Callable[[], Model] | None,
        retry_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        load_s: float = LOAD_S,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self.ready: Model | None = None  # the configured bundle's, never the fallback
        self._fallback_model: Model | None = None
        self._load = load
        self._fallback = fallback
        self._load_s = load_s
        self._clock = clock
        self._start = start or _start_thread
        self._pause_s = retry_s
        self._attempt: Future[None] | None = None  # in progress or done; None if it was given up
        self._next_s = 0.0  # when to try again, or to give up the attempt in progress
        self._lock, self._fallback_lock = RLock(), RLock()

    def model(self) -> Model:
        """The model that serves now. Starts a retry if one is due, and doesn't wait for it.

        Raises ModelUnavailableError, with the seconds until the next attempt.
        """
        self._retry_if_due()
        return self._serving()

    async def wait_for_model(self, call: Call) -> Model:
        """The same, but waits for an attempt in progress while nothing serves.

        Lambda freezes threads between requests, and a load would never end: there a request waits
        up to Lambda's own deadline. While the fallback serves, only the request that starts a retry
        waits for it, for half its budget.
        """
        has_started = self._retry_if_due()
        attempt, now_s = self._attempt, perf_counter()
        if self._fallback_model is None:
            wait_s = max(call.deadline_s, call.limit_s) - now_s
        elif call.limit_s and has_started:
            wait_s = RETRY_SHARE * (call.deadline_s - now_s)
        else:
            wait_s = 0
        if attempt and not self.ready and wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    asyncio.wrap_future(attempt), min(wait_s, self._load_s + FALLBACK_S)
                )
        return self._serving()

    @property
    def waits(self) -> bool:
        """Whether a request may wait: for its feature store, or for a load, whose model may have a
        store that waits."""
        return self.ready is None or self.ready.features.waits

    def load(self) -> None:
        """Makes one attempt, and waits for it for `load_s` at most. A refusal is logged, never
        raised: Lambda would start an init that fails again and again."""
        with self._lock:
            attempt = self._begin()
        if not _is_done(attempt, self._load_s):
            self._refuse(attempt, self._timeout_reason)
            fallback: Future[None] = Future()
            self._start(lambda: _finish(fallback, self._fall_back))
            _is_done(fallback, FALLBACK_S)

    def load_or_raise(self) -> None:
        """Raises ModelUnavailableError unless the configured bundle is loaded."""
        if self.ready is None:
            self.load()
        if self.ready is None:
            raise ModelUnavailableError("the bundle could not be loaded; see the log")

    def reconnect(self) -> None:
        """After a SnapStart restore: connections that the model's stores opened are dead."""
        for store in self.ready.stores if self.ready else ():
            connect = getattr(store, "connect", None)
            try:
                if connect:
                    connect()
            except Exception as error:
                name = type(store).__name__
                logger.error("feature store can't connect", store=name, reason=_reason(error))

    def close(self) -> None:
        """In the child of a fork: PyTorch would wait for threads that are not there, ONNX Runtime
        has one left, and a team's stores share the parent's connections."""
        self.ready = self._fallback_model = self._attempt = None
        self._lock, self._fallback_lock = RLock(), RLock()
        self._next_s = math.inf
        logger.error("model refused", reason=FORKED)

    def _serving(self) -> Model:
        if model := self.ready or self._fallback_model:
            return model
        if self._next_s == math.inf:
            raise ModelUnavailableError(FORKED)
        wait_s = max(1, round(self._next_s - self._clock()))
        raise ModelUnavailableError("no bundle could be loaded; see the log", wait_s)

    def _retry_if_due(self) -> bool:
        """Returns whether it started a retry."""
        if self.ready is None and self._clock() >= self._next_s:
            with self._lock:
                if self._attempt and not self._attempt.done():
                    self._refuse(self._attempt, self._timeout_reason)
                elif self._clock() >= self._next_s:
                    self._begin()
                    return True
        return False

    def _begin(self) -> Future[None]:
        attempt: Future[None] = Future()
        self._attempt = attempt
        attempt.set_running_or_notify_cancel()  # so that a waiter's cancellation doesn't cancel it
        self._next_s = self._clock() + self._load_s
        self._start(lambda: _finish(attempt, lambda: self._try(attempt)))
        return attempt

    def _try(self, attempt: Future[None]) -> None:
        try:
            model = self._load()
        except Exception as error:
            self._refuse(attempt, _reason(error))
            self._fall_back()
        else:
            self.ready = model  # also if the attempt was given up
            logger.info("model loaded", extra=_log_fields(model))

    def _refuse(self, attempt: Future[None], reason: str) -> None:
        with self._lock:
            logger.error("model refused", reason=reason, retry_in_s=self._pause_s)
            if attempt is self._attempt:
                self._attempt = None
                self._next_s = self._clock() + self._pause_s
                self._pause_s = min(2 * self._pause_s, MAX_RETRY_S)

    def _fall_back(self) -> None:
        with self._fallback_lock:
            if self._fallback is None or self._fallback_model:
                return
            try:
                model = replace(self._fallback(), degraded=(FALLBACK,))
            except Exception as error:
                logger.error("fallback model refused", reason=_reason(error))
            else:
                logger.warning("fallback model loaded", extra=_log_fields(model))
                self._fallback_model = model

    @property
    def _timeout_reason(self) -> str:
        return f"it takes more than {self._load_s:g} s to load"


def _start_thread(work: Callable[[], None]) -> None:
    """In a daemon thread, so that a load which hangs doesn't keep the process from ending. At exit
    it gets a moment: ending a thread within C++ aborts the process."""

    def run() -> None:
        work()
        atexit.unregister(wait)

    thread = Thread(target=run, name="model load", daemon=True)
    wait = partial(thread.join, EXIT_S)
    atexit.register(wait)
    thread.start()


def _finish(future: Future[None], work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        future.set_result(None)


def _is_done(future: Future[None], timeout_s: float) -> bool:
    with suppress(TimeoutError):
        future.result(timeout_s)
    return future.done()


def _reason(error: Exception) -> str:
    is_ours = isinstance(error, FeedrankError)
    return str(error) if is_ours else f"{type(error).__name__}: {error}"


def _log_fields(model: Model) -> dict[str, str]:
    return {"model_version": model.manifest.model_version, "digest": model.manifest.digest}
