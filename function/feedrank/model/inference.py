"""An inference and its deadline. At its deadline an inference is stopped, where its engine can stop
one. An inference that goes on for HUNG_S after that hangs, and would hold up all that wait for it:
a new process has to take over.

Lambda freezes a process between two requests while its clocks go on. So the lateness of an
inference is summed up check by check, and a freeze counts as one check.
"""

import os
from collections.abc import Callable, Mapping
from math import inf
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Literal, NoReturn

from feedrank.domain import FloatArray
from feedrank.errors import DeadlineExceededError, ScoringError
from feedrank.model.engines import ScoringEngine, Stopper, is_stoppable
from feedrank.telemetry.logging import logger

HUNG_S = 3.0  # after its deadline, an inference hangs
CHECK_S = 0.25  # between two checks of a late inference
TIMED_OUT = "the model takes more time than is left"

# On `lambda` a process serves one request at a time, so an inference that hangs may end it. On a
# `server` it serves others meanwhile. Nobody waits for the end of a `self_test`, which is a load's.
Purpose = Literal["lambda", "server", "self_test"]


class Inference:
    """One in progress. `deadline_s` and `checked_s` are `time.perf_counter()` seconds; `late_s` is
    how long it was observed to run after its deadline."""

    __slots__ = ("checked_s", "deadline_s", "late_s", "purpose", "stopper")

    def __init__(self, deadline_s: float, purpose: Purpose, stopper: Stopper | None) -> None:
        self.deadline_s = self.checked_s = deadline_s
        self.late_s = 0.0
        self.purpose = purpose
        self.stopper = stopper


class Watchdog:
    """A thread that sleeps until the next deadline. Most inferences end before it wakes, so it
    wakes once per time budget, however many requests there are; only an earlier deadline wakes it.
    """

    def __init__(self) -> None:
        self._inferences: set[Inference] = set()
        self.before_exit: Callable[[], None] = lambda: None  # responds to the request in progress
        self.restart()

    def restart(self) -> None:
        """In the child of a fork, which has neither the inferences nor the thread."""
        self._inferences.clear()
        self._next_check_s = inf
        self._wake, self._start_lock = Event(), Lock()
        self._thread: Thread | None = None

    def begin(self, inference: Inference) -> None:
        self._inferences.add(inference)
        if inference.deadline_s < self._next_check_s:
            self.wake()

    def end(self, inference: Inference) -> None:
        self._inferences.discard(inference)

    def wake(self) -> None:
        """Makes it check now. Starts the thread when it is first needed."""
        with self._start_lock:
            if self._thread is None:
                thread = Thread(target=self._run, name="deadlines", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the container has no thread left; the next call tries again
                    logger.warning(
                        "no thread for the deadlines: inferences are not stopped at theirs"
                    )
                    return
                self._thread = thread
        self._wake.set()

    @property
    def late(self) -> bool:
        """Whether a request's inference is past its deadline."""
        now_s = perf_counter()
        return any(
            each.purpose != "self_test" and each.deadline_s < now_s
            for each in tuple(self._inferences)
        )

    @property
    def hangs(self) -> bool:
        return any(each.late_s >= HUNG_S for each in tuple(self._inferences))

    def _run(self) -> None:
        while True:
            self._wake.clear()
            self._next_check_s = inf  # before the check: an inference that it misses wakes it again
            self._next_check_s = next_s = self._check_all()
            self._wake.wait(None if next_s == inf else max(0.0, next_s - perf_counter()))

    def _check_all(self) -> float:
        """Returns when to check again."""
        now_s = perf_counter()
        return min((_check(each, now_s) for each in tuple(self._inferences)), default=inf)


def _check(inference: Inference, now_s: float) -> float:
    """Stops a late inference, and ends the process of one that hangs on Lambda. Returns when to
    check it again."""
    if now_s < inference.deadline_s:
        return inference.deadline_s
    if inference.stopper:
        inference.stopper.terminate = True
    if inference.purpose == "self_test":
        return inf
    inference.late_s += min(now_s - inference.checked_s, CHECK_S)
    inference.checked_s = now_s
    if inference.late_s >= HUNG_S and inference.purpose == "lambda":
        _end_process()
    return now_s + CHECK_S


def _end_process() -> NoReturn:
    """After a response to the request: for the next one Lambda starts another process."""
    try:
        try:
            watchdog.before_exit()
        except Exception:  # noqa: BLE001 the process ends in any case
            logger.exception("the request got no response")
        logger.critical("an inference hangs: the process ends", late_s=HUNG_S)
    finally:
        os._exit(1)


watchdog = Watchdog()
os.register_at_fork(after_in_child=watchdog.restart)


def score(
    engine: ScoringEngine, inputs: Mapping[str, FloatArray], deadline_s: float, purpose: Purpose
) -> FloatArray:
    """(items,) float32, late where the engine can't stop an inference. Raises ScoringError, or
    DeadlineExceededError where it was stopped."""
    stoppable = engine if is_stoppable(engine) else None
    stopper = stoppable.stopper() if stoppable else None
    inference = Inference(deadline_s, purpose, stopper)
    try:
        watchdog.begin(inference)
        return stoppable.score(inputs, stopper) if stoppable else engine.score(inputs)
    except ScoringError as error:
        if stopper and stopper.terminate:
            raise DeadlineExceededError(TIMED_OUT) from error
        raise
    finally:
        watchdog.end(inference)
