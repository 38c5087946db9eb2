"""Where a model runs: at once, or beside the event loop, with all that wait there in one run."""

import asyncio
import atexit
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from itertools import groupby
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import NamedTuple

import numpy as np

from feedrank.domain import Call, FeatureRows, FloatArray, Query
from feedrank.errors import DeadlineExceededError
from feedrank.model.engines import is_stoppable
from feedrank.model.load import Model
from feedrank.model.runs import TOO_LONG, Purpose, score

HAND_OVER_S = 100e-6  # a run shorter than this ranks more where it is than in a thread
MOST_ITEMS = 2_048  # in one run, beside those of the request that goes beyond it
LONGEST_HERE_S = 50e-3  # of a run on the event loop; then it's made again in the thread
ENOUGH_S = 2e-3  # of one run: more gains little, and the first would wait for the last
EXIT_S = 10.0  # that the process waits for a run before it ends
TOO_LATE = "no time is left to score"


class Job(NamedTuple):
    """One request's part of a run."""

    model: Model
    inputs: dict[str, FloatArray]
    items: int
    deadline_s: float
    scores: asyncio.Future[FloatArray] | Future[FloatArray]  # the latter of who is alone


class Scorer:
    """On Lambda a request is alone in its process, and is scored where it is, if that can be ended
    at its deadline. Elsewhere, unless its run is brief, a thread does it while the event loop goes
    on; what comes meanwhile waits, and is then scored in one run, where the model allows that.
    """

    def __init__(self) -> None:
        self._running = Lock()

    async def score(self, model: Model, query: Query, rows: FeatureRows, call: Call) -> FloatArray:
        """(items,) float32. Raises InvalidRequestError, ScoringError or DeadlineExceededError."""
        inputs, items = model.matrix.build(query, rows), len(query.item_ids)
        now_s = perf_counter()
        if now_s > call.deadline_s:
            raise DeadlineExceededError(TOO_LATE)
        if call.is_alone:
            if is_stoppable(model.engine):
                return _timely(_run(model, inputs, items, call.deadline_s, "lambda"), call)
            return self._alone(model, inputs, items, call.deadline_s)
        if model.pace.is_within(HAND_OVER_S, items) and is_stoppable(model.engine):
            until_s = min(call.deadline_s, now_s + LONGEST_HERE_S)
            try:
                return _timely(_run(model, inputs, items, until_s, "server"), call)
            except DeadlineExceededError:
                model.pace.forget()
        return await self._beside(model, inputs, items, call.deadline_s)

    def _alone(
        self, model: Model, inputs: dict[str, FloatArray], items: int, deadline_s: float
    ) -> FloatArray:
        scores: Future[FloatArray] = Future()
        self._queue.put(Job(model, inputs, items, deadline_s, scores))
        try:
            return scores.result(deadline_s - perf_counter())
        except TimeoutError as error:
            raise DeadlineExceededError(TOO_LONG) from error

    async def _beside(
        self, model: Model, inputs: dict[str, FloatArray], items: int, deadline_s: float
    ) -> FloatArray:
        loop = asyncio.get_running_loop()
        scores: asyncio.Future[FloatArray] = loop.create_future()
        self._queue.put(Job(model, inputs, items, deadline_s, scores))
        left_s = deadline_s - perf_counter()
        late = loop.call_later(left_s, _tell, scores, DeadlineExceededError(TOO_LONG))
        try:
            return await scores
        finally:
            late.cancel()

    @cached_property
    def _queue(self) -> SimpleQueue[Job]:
        """Has one thread behind it: the processor is the limit, and the engine may have threads of
        its own."""
        queue: SimpleQueue[Job] = SimpleQueue()
        Thread(target=self._work, args=(queue,), name="scoring", daemon=True).start()
        # A thread that is ended within a run of C++ takes the process with it, by an abort.
        atexit.register(self._running.acquire, timeout=EXIT_S)
        return queue

    def _work(self, queue: SimpleQueue[Job]) -> None:
        while True:
            self._serve(queue)  # a call, so that an idle thread holds on to no model

    def _serve(self, queue: SimpleQueue[Job]) -> None:
        for jobs in _runs(self._waiting(queue)):
            self._score(jobs)

    def _waiting(self, queue: SimpleQueue[Job]) -> list[Job]:
        """At least one; and whoever else is there by now, up to what is enough for a run."""
        jobs = [queue.get()]
        items, pace = jobs[0].items, jobs[0].model.pace
        while not queue.empty():
            if items >= MOST_ITEMS or items * pace.item_s >= ENOUGH_S:
                break
            jobs.append(queue.get())
            items += jobs[-1].items
        return jobs

    def _score(self, jobs: list[Job]) -> None:
        """In one run. Where that fails each has its own, so that one's error isn't the others'."""
        jobs = _wanted(jobs)
        if not jobs:
            return
        model, items = jobs[0].model, sum(job.items for job in jobs)
        until_s = max(job.deadline_s for job in jobs)
        purpose: Purpose = "lambda" if isinstance(jobs[0].scores, Future) else "server"
        try:
            with self._running:
                scores = _run(model, _joined(jobs), items, until_s, purpose)
        except BaseException as error:  # noqa: BLE001 whatever it is, it is the request's
            if len(jobs) == 1:
                _settle(jobs[0], error)
            else:
                for job in jobs:
                    self._score([job])
        else:
            start, now_s = 0, perf_counter()
            for job in jobs:
                part = scores[start : start + job.items]
                in_time = now_s <= job.deadline_s
                _settle(job, part if in_time else DeadlineExceededError(TOO_LONG))
                start += job.items


def _run(
    model: Model, inputs: dict[str, FloatArray], items: int, deadline_s: float, purpose: Purpose
) -> FloatArray:
    begun = perf_counter()
    scores = score(model.engine, inputs, deadline_s, purpose)
    model.pace.note(perf_counter() - begun, items)
    return scores


def _timely(scores: FloatArray, call: Call) -> FloatArray:
    if perf_counter() > call.deadline_s:
        raise DeadlineExceededError(TOO_LONG)
    return scores


def _wanted(jobs: list[Job]) -> list[Job]:
    """But for those whose time is up, who are told, and those who went away."""
    now_s = perf_counter()
    for job in jobs:
        if now_s > job.deadline_s:
            _settle(job, DeadlineExceededError(TOO_LATE))
    return [job for job in jobs if now_s <= job.deadline_s and not job.scores.done()]


def _runs(jobs: list[Job]) -> Iterator[list[Job]]:
    """Those of one model together, where their rows may be."""
    for _, same in groupby(jobs, key=lambda job: id(job.model)):
        together = list(same)
        if together[0].model.manifest.batches:
            yield together
        else:
            yield from ([job] for job in together)


def _joined(jobs: list[Job]) -> dict[str, FloatArray]:
    inputs = jobs[0].inputs
    if len(jobs) == 1:
        return inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in inputs}


def _settle(job: Job, outcome: FloatArray | BaseException) -> None:
    if isinstance(job.scores, Future):
        _tell(job.scores, outcome)
        return
    with suppress(RuntimeError):  # its event loop is closed: nobody waits
        job.scores.get_loop().call_soon_threadsafe(_tell, job.scores, outcome)


def _tell(
    scores: asyncio.Future[FloatArray] | Future[FloatArray], outcome: FloatArray | BaseException
) -> None:
    if scores.done():  # who asked went away
        return
    if isinstance(outcome, BaseException):
        scores.set_exception(outcome)
    else:
        scores.set_result(outcome)
