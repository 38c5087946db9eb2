"""Runs a model for one request. Lambda has an `InlineScorer`, a web server a `BatchingScorer`; the
composition root chooses at init."""

import atexit
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property, partial
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import Generic, Literal, Protocol, TypeVar

from feedrank.domain import Call, FeatureRows, FloatArray, Query
from feedrank.errors import DeadlineExceededError
from feedrank.model import inference
from feedrank.model.engines import is_stoppable
from feedrank.model.load import Model

Job = TypeVar("Job")
EXIT_S = 10.0  # that the process waits for an inference before it ends
TOO_LATE = "no time is left to score"


class Scorer(Protocol):
    """A request may wait in one that `waits`, and so needs an event loop."""

    @property
    def waits(self) -> bool: ...

    async def score(self, model: Model, query: Query, rows: FeatureRows, call: Call) -> FloatArray:
        """(items,) float32. Raises InvalidRequestError, ScoringError or DeadlineExceededError."""


class ScoringThread(Generic[Job]):
    """One daemon thread that serves a queue: the processor is the limit, and the engine may have
    threads of its own. An inference holds `busy`."""

    def __init__(self, serve: Callable[[SimpleQueue[Job]], None]) -> None:
        self._serve = serve
        self.busy = Lock()

    @cached_property
    def queue(self) -> SimpleQueue[Job]:
        """Starts the thread when it is first used."""
        queue: SimpleQueue[Job] = SimpleQueue()
        Thread(target=self._work, args=(queue,), name="scoring", daemon=True).start()
        # Ending a thread within C++ aborts the process.
        atexit.register(self.busy.acquire, timeout=EXIT_S)
        return queue

    def _work(self, queue: SimpleQueue[Job]) -> None:
        while True:
            self._serve(queue)  # a call, so that an idle thread keeps no reference to a model


class InlineScorer:
    """Inference in the request's own thread, for a process that serves one request at a time. An
    engine that can't stop an inference gets another thread, so that the request can end first.

    On `lambda` an inference that hangs ends the process, on a `server` it doesn't.
    """

    waits = False

    def __init__(self, purpose: Literal["lambda", "server"] = "lambda") -> None:
        self._purpose: Literal["lambda", "server"] = purpose
        self._thread = ScoringThread(self._serve)

    async def score(self, model: Model, query: Query, rows: FeatureRows, call: Call) -> FloatArray:
        inputs = model.matrix.build(query, rows)
        if perf_counter() > call.deadline_s:
            raise DeadlineExceededError(TOO_LATE)
        if is_stoppable(model.engine):
            scores = inference.score(model.engine, inputs, call.deadline_s, self._purpose)
        else:
            scores = self._in_thread(model, inputs, call)
        if perf_counter() > call.deadline_s:
            raise DeadlineExceededError(inference.TIMED_OUT)
        return scores

    def _in_thread(self, model: Model, inputs: dict[str, FloatArray], call: Call) -> FloatArray:
        scores: Future[FloatArray] = Future()
        run = partial(inference.score, model.engine, inputs, call.deadline_s, self._purpose)
        self._thread.queue.put((run, scores))
        try:
            return scores.result(call.deadline_s - perf_counter())
        except TimeoutError as error:
            scores.cancel()  # if it has not begun
            raise DeadlineExceededError(inference.TIMED_OUT) from error

    def _serve(
        self, queue: SimpleQueue[tuple[Callable[[], FloatArray], Future[FloatArray]]]
    ) -> None:
        run, scores = queue.get()
        if not scores.set_running_or_notify_cancel():
            return
        try:
            with self._thread.busy:
                scores.set_result(run())
        except BaseException as error:
            scores.set_exception(error)
