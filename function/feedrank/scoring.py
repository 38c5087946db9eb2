"""Where a model runs: at once, or beside the event loop, with all that wait there in one run."""

import asyncio
import atexit
from collections.abc import Iterator
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
from feedrank.model import Model

HAND_OVER_S = 100e-6  # a run shorter than this ranks more where it is than in a thread
MOST_ITEMS = 2_048  # in one run, beside those of the request that goes beyond it
ENOUGH_S = 2e-3  # of one run: more gains little, and the first would wait for the last
EXIT_S = 10.0  # that the process waits for a run before it ends
TOO_LATE = "no time is left to score"


class Job(NamedTuple):
    """One request's part of a run."""

    model: Model
    inputs: dict[str, FloatArray]
    items: int
    deadline_s: float
    scores: asyncio.Future[FloatArray]


class Scorer:
    """On Lambda a request is alone in its container, and is scored where it is. Elsewhere, unless
    its run is brief, a thread does it while the event loop goes on; what comes meanwhile waits, and
    is then scored in one run, where the model allows that.
    """

    def __init__(self) -> None:
        self._running = Lock()

    async def score(self, model: Model, query: Query, rows: FeatureRows, call: Call) -> FloatArray:
        """(items,) float32. Raises InvalidRequestError, ScoringError or DeadlineExceededError."""
        inputs, items = model.matrix.build(query, rows), len(query.item_ids)
        pace = model.pace
        if call.is_alone or max(pace.run_s, pace.item_s * items) < HAND_OVER_S:
            if perf_counter() > call.deadline_s:
                raise DeadlineExceededError(TOO_LATE)
            return self._run(model, inputs, items)
        scores: asyncio.Future[FloatArray] = asyncio.get_running_loop().create_future()
        self._queue.put(Job(model, inputs, items, call.deadline_s, scores))
        return await scores

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
        try:
            with self._running:
                scores = self._run(jobs[0].model, _joined(jobs), sum(job.items for job in jobs))
        except BaseException as error:  # noqa: BLE001 whatever it is, it is the request's
            if len(jobs) == 1:
                _settle(jobs[0], error)
            else:
                for job in jobs:
                    self._score([job])
        else:
            start = 0
            for job in jobs:
                _settle(job, scores[start : start + job.items])
                start += job.items

    @staticmethod
    def _run(model: Model, inputs: dict[str, FloatArray], items: int) -> FloatArray:
        begun = perf_counter()
        scores = model.engine.score(inputs)
        took_s = perf_counter() - begun
        model.pace.run_s = min(model.pace.run_s, took_s)
        model.pace.item_s = min(model.pace.item_s, took_s / items)
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
    with suppress(RuntimeError):  # its event loop is closed: nobody waits
        job.scores.get_loop().call_soon_threadsafe(_tell, job.scores, outcome)


def _tell(scores: asyncio.Future[FloatArray], outcome: FloatArray | BaseException) -> None:
    if scores.done():  # who asked went away
        return
    if isinstance(outcome, BaseException):
        scores.set_exception(outcome)
    else:
        scores.set_result(outcome)
