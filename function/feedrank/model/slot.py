"""The container's one model: loaded once at init, and tried again when it was refused."""

import asyncio
import atexit
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
STAND_IN_SHARE = 0.5  # of its time, that the request which starts a retry gives it on Lambda
FALLBACK = "model:layer"  # how `degraded` names it


class ModelSlot:
    """Holds the model. One that was refused is tried again beside the requests, in a thread."""

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
        self.ready: Model | None = None  # the very bundle that was asked for
        self._stand_in: Model | None = None
        self._load = load
        self._fallback = fallback
        self._load_s = load_s
        self._clock = clock
        self._start = start or _in_thread
        self._pause_s = retry_s
        self._attempt: Future[None] | None = None  # under way, or over; None where it was given up
        self._next_s = 0.0  # when to try again, or to give up what is under way
        self._lock, self._falling_back = RLock(), RLock()

    def model(self) -> Model:
        """What serves now; starts a retry where one is due, and doesn't wait for it.

        Raises ModelUnavailableError, with the seconds until the next try.
        """
        self._retry_if_due()
        return self._serving()

    async def model_within(self, call: Call) -> Model:
        """The same, but while nothing serves it waits for a load that is under way. On Lambda a
        thread stands still between requests, and a load would never end: so there it may take all
        the time that Lambda gives, and while the fallback serves, the one request that starts a
        retry gives it half its budget."""
        has_begun = self._retry_if_due()
        attempt, now_s = self._attempt, perf_counter()
        if self._stand_in is None:
            wait_s = max(call.deadline_s, call.limit_s) - now_s
        else:
            wait_s = STAND_IN_SHARE * (call.deadline_s - now_s) if call.limit_s and has_begun else 0
        if attempt and not self.ready and wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    asyncio.wrap_future(attempt), min(wait_s, self._load_s + FALLBACK_S)
                )
        return self._serving()

    @property
    def waits(self) -> bool:
        """Whether a request could wait for something: a store's answer, or a load that might bring
        a store which does."""
        return self.ready is None or self.ready.features.waits

    def load(self) -> None:
        """Try once, and wait for it no longer than `load_s`. A refusal is logged, never raised:
        init must not crash and loop."""
        with self._lock:
            attempt = self._begin()
        if not _is_over(attempt, self._load_s):
            self._refuse(attempt, self._too_long)
            fallback: Future[None] = Future()
            self._start(lambda: _finish(fallback, self._fall_back))
            _is_over(fallback, FALLBACK_S)

    def prove(self) -> None:
        """Raises ModelUnavailableError unless the very bundle that was asked for is loaded."""
        if self.ready is None:
            self.load()
        if self.ready is None:
            raise ModelUnavailableError("the bundle could not be loaded; see the log")

    def _serving(self) -> Model:
        if model := self.ready or self._stand_in:
            return model
        wait_s = max(1, round(self._next_s - self._clock()))
        raise ModelUnavailableError("no bundle could be loaded; see the log", wait_s)

    def _retry_if_due(self) -> bool:
        """Whether it began one."""
        if self.ready is None and self._clock() >= self._next_s:
            with self._lock:
                if self._attempt and not self._attempt.done():
                    self._refuse(self._attempt, self._too_long)
                elif self._clock() >= self._next_s:
                    self._begin()
                    return True
        return False

    def _begin(self) -> Future[None]:
        attempt: Future[None] = Future()
        self._attempt = attempt
        attempt.set_running_or_notify_cancel()  # who stops waiting for it doesn't end it
        self._next_s = self._clock() + self._load_s
        self._start(lambda: _finish(attempt, lambda: self._try(attempt)))
        return attempt

    def _try(self, attempt: Future[None]) -> None:
        try:
            model = self._load()
        except Exception as error:  # noqa: BLE001 whatever it is
            self._refuse(attempt, _reason(error))
            self._fall_back()
        else:
            self.ready = model  # however late it is
            logger.info("model loaded", extra=_described(model))

    def _refuse(self, attempt: Future[None], reason: str) -> None:
        with self._lock:
            logger.error("model refused", reason=reason, retry_in_s=self._pause_s)
            if attempt is self._attempt:
                self._attempt = None
                self._next_s = self._clock() + self._pause_s
                self._pause_s = min(2 * self._pause_s, MAX_RETRY_S)

    def _fall_back(self) -> None:
        with self._falling_back:
            if self._fallback is None or self._stand_in:
                return
            try:
                model = replace(self._fallback(), degraded=(FALLBACK,))
            except Exception as error:  # noqa: BLE001 whatever it is
                logger.error("fallback model refused", reason=_reason(error))
            else:
                logger.warning("fallback model loaded", extra=_described(model))
                self._stand_in = model

    @property
    def _too_long(self) -> str:
        return f"it takes more than {self._load_s:g} s to load"


def _in_thread(work: Callable[[], None]) -> None:
    """A daemon's: whatever hangs, the process can end. It is given a moment, since a thread that is
    ended within C++ takes the process with it, by an abort."""

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


def _is_over(future: Future[None], within_s: float) -> bool:
    with suppress(TimeoutError):
        future.result(within_s)
    return future.done()


def _reason(error: Exception) -> str:
    ours = isinstance(error, FeedrankError)
    return str(error) if ours else f"{type(error).__name__}: {error}"


def _described(model: Model) -> dict[str, str]:
    return {"model_version": model.manifest.model_version, "digest": model.manifest.digest}
