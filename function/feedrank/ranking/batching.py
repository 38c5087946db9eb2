"""For a web server: inference in a thread, while the event loop goes on, in batches of requests."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from queue import SimpleQueue
from time import perf_counter
from typing import NamedTuple

import numpy as np

from feedrank.domain import MAX_BATCH_ITEMS, Call, FeatureRows, FloatArray, Query
from feedrank.errors import DeadlineExceededError
from feedrank.model import inference
from feedrank.model.engines import is_stoppable
from feedrank.model.load import Model
from feedrank.ranking.scorer import TOO_LATE, ScoringThread

HAND_OVER_S = 100e-6  # a shorter inference gains nothing from a thread
INLINE_LIMIT_S = 50e-3  # of an inference on the event loop; then it is repeated in the thread
ENOUGH_S = 2e-3  # for a batch: more gains little, and the first request waits for the last


class Job(NamedTuple):
    """One request's part of a batch."""

    model: Model
    inputs: dict[str, FloatArray]
    items: int
    deadline_s: float
    scores: asyncio.Future[FloatArray]


class BatchingScorer:
    """A brief inference takes place on the event loop. A longer one takes place in a thread;
    requests that come meanwhile wait, and form the next batch if the model allows it."""

    waits = True

    def __init__(self) -> None:
        self._thread = ScoringThread(self._serve)

    async def score(self, model: Model, query: Query, rows: FeatureRows, call: Call) -> FloatArray:
        inputs, items = model.matrix.build(query, rows), len(query.item_ids)
        now_s = perf_counter()
        if now_s > call.deadline_s:
            raise DeadlineExceededError(TOO_LATE)
        if model.pace.is_within(HAND_OVER_S, items) and is_stoppable(model.engine):
            until_s = min(call.deadline_s, now_s + INLINE_LIMIT_S)
            try:
                scores = _infer(model, inputs, items, until_s)
            except DeadlineExceededError:
                model.pace.forget()
            else:
                if perf_counter() > call.deadline_s:
                    raise DeadlineExceededError(inference.TIMED_OUT)
                return scores
        return await self._in_thread(model, inputs, items, call.deadline_s)

    async def _in_thread(
        self, model: Model, inputs: dict[str, FloatArray], items: int, deadline_s: float
    ) -> FloatArray:
        loop = asyncio.get_running_loop()
        scores: asyncio.Future[FloatArray] = loop.create_future()
        self._thread.queue.put(Job(model, inputs, items, deadline_s, scores))
        left_s = deadline_s - perf_counter()
        timed_out = DeadlineExceededError(inference.TIMED_OUT)
        timer = loop.call_later(left_s, _resolve, scores, timed_out)
        try:
            return await scores
        finally:
            timer.cancel()

    def _serve(self, queue: SimpleQueue[Job]) -> None:
        for batch in _batches(_waiting(queue)):
            self._score(batch)

    def _score(self, jobs: list[Job]) -> None:
        """Scores the jobs in one inference. If it fails, each job is scored by itself, so that one
        job's error doesn't fail the others."""
        jobs = _without_expired(jobs)
        if not jobs:
            return
        model, items = jobs[0].model, sum(job.items for job in jobs)
        until_s = max(job.deadline_s for job in jobs)
        try:
            with self._thread.busy:
                scores = _infer(model, _concatenated(jobs), items, until_s)
        except BaseException as error:
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
                _settle(job, part if in_time else DeadlineExceededError(inference.TIMED_OUT))
                start += job.items


def _infer(
    model: Model, inputs: dict[str, FloatArray], items: int, deadline_s: float
) -> FloatArray:
    started_s = perf_counter()
    scores = inference.score(model.engine, inputs, deadline_s, "server")
    model.pace.note(perf_counter() - started_s, items)
    return scores


def _waiting(queue: SimpleQueue[Job]) -> list[Job]:
    """Blocks for one job, then drains the queue up to a batch."""
    jobs = [queue.get()]
    items, pace = jobs[0].items, jobs[0].model.pace
    while not queue.empty():
        if items >= MAX_BATCH_ITEMS or items * pace.item_s >= ENOUGH_S:
            break
        jobs.append(queue.get())
        items += jobs[-1].items
    return jobs


def _without_expired(jobs: list[Job]) -> list[Job]:
    """Drops expired jobs, failing them, and cancelled ones."""
    now_s = perf_counter()
    for job in jobs:
        if now_s > job.deadline_s:
            _settle(job, DeadlineExceededError(TOO_LATE))
    return [job for job in jobs if now_s <= job.deadline_s and not job.scores.done()]


def _batches(jobs: list[Job]) -> Iterator[list[Job]]:
    """Groups consecutive jobs of one model, if none of its scores depends on other items."""
    for _, group in groupby(jobs, key=lambda job: id(job.model)):
        batch = list(group)
        if batch[0].model.manifest.batches:
            yield batch
        else:
            yield from ([job] for job in batch)


def _concatenated(jobs: list[Job]) -> dict[str, FloatArray]:
    inputs = jobs[0].inputs
    if len(jobs) == 1:
        return inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in inputs}


def _settle(job: Job, outcome: FloatArray | BaseException) -> None:
    with suppress(RuntimeError):  # its event loop is closed
        job.scores.get_loop().call_soon_threadsafe(_resolve, job.scores, outcome)


def _resolve(scores: asyncio.Future[FloatArray], outcome: FloatArray | BaseException) -> None:
    if scores.done():  # the request was cancelled
        return
    if isinstance(outcome, BaseException):
        scores.set_exception(outcome)
    else:
        scores.set_result(outcome)
