"""A model run and its deadline. One past it is ended, where its engine can end a run. One that goes
on for HUNG_S more hangs, and what waits for it waits in vain: a new process has to take over.
"""

import os
from collections.abc import Mapping
from math import inf
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Literal, NoReturn

from feedrank.domain import FloatArray
from feedrank.engine import ScoringEngine, Stopper, is_stoppable
from feedrank.errors import DeadlineExceededError, ScoringError
from feedrank.telemetry import logger

HUNG_S = 3.0  # past its deadline, a run hangs
TOO_LONG = "the model takes more time than is left"

# On `lambda` a request is alone in its process, so a run that hangs may end that. Elsewhere others
# are served there meanwhile. A `proof` is a load's, and its end nobody waits for.
Purpose = Literal["lambda", "server", "proof"]


class Run:
    """One that is under way. `deadline_s` is `time.perf_counter()` seconds."""

    __slots__ = ("deadline_s", "purpose", "stopper")

    def __init__(self, deadline_s: float, purpose: Purpose, stopper: Stopper | None) -> None:
        self.deadline_s = deadline_s
        self.purpose = purpose
        self.stopper = stopper


class Watch:
    """A thread that sleeps until the next deadline. Most runs are over before it looks, so it wakes
    once a time budget, however many requests there are; only a deadline before that rings it."""

    def __init__(self) -> None:
        self._runs: set[Run] = set()
        self.restart()

    def restart(self) -> None:
        """As in the child of a fork, which has neither the runs nor the thread."""
        self._runs.clear()
        self._looks_s = inf  # when the thread looks next
        self._bell, self._starting = Event(), Lock()
        self._thread: Thread | None = None

    def begin(self, run: Run) -> None:
        self._runs.add(run)
        if run.deadline_s < self._looks_s:
            self.ring()

    def end(self, run: Run) -> None:
        self._runs.discard(run)

    def ring(self) -> None:
        """Have it look now."""
        with self._starting:
            if self._thread is None:
                thread = Thread(target=self._keep, name="deadlines", daemon=True)
                thread.start()
                self._thread = thread  # not where it could not be started
        self._bell.set()

    def late_s(self) -> float:
        """For how long a run of a request's is past its deadline; 0 where none is."""
        now_s = perf_counter()
        serving = (run for run in tuple(self._runs) if run.purpose != "proof")
        return max([0.0, *(now_s - run.deadline_s for run in serving)])

    @property
    def hangs(self) -> bool:
        return self.late_s() >= HUNG_S

    def _keep(self) -> None:
        while True:
            self._bell.clear()
            self._looks_s = inf  # before it looks: a run that it doesn't see rings
            self._looks_s = next_s = self._look()
            self._bell.wait(None if next_s == inf else max(0.0, next_s - perf_counter()))

    def _look(self) -> float:
        """When to look again."""
        now_s = perf_counter()
        return min((_judge(run, now_s) for run in tuple(self._runs)), default=inf)


def _judge(run: Run, now_s: float) -> float:
    """When to judge it again."""
    if now_s < run.deadline_s:
        return run.deadline_s
    if run.stopper:
        run.stopper.terminate = True
    if run.purpose != "lambda":
        return inf
    if now_s >= run.deadline_s + HUNG_S:
        _end_process()
    return run.deadline_s + HUNG_S


def _end_process() -> NoReturn:
    """Lambda then fails the invocation at once, and starts another process for the next one."""
    try:
        logger.critical("a model run hangs: the process ends", late_s=HUNG_S)
    finally:
        os._exit(1)


watch = Watch()
os.register_at_fork(after_in_child=watch.restart)


def score(
    engine: ScoringEngine, inputs: Mapping[str, FloatArray], deadline_s: float, purpose: Purpose
) -> FloatArray:
    """(items,) float32, late where the engine can't end a run. Raises ScoringError, or
    DeadlineExceededError where the run was ended."""
    stoppable = engine if is_stoppable(engine) else None
    stopper = stoppable.stopper() if stoppable else None
    run = Run(deadline_s, purpose, stopper)
    try:
        watch.begin(run)
        return stoppable.score(inputs, stopper) if stoppable else engine.score(inputs)
    except ScoringError as error:
        if stopper and stopper.terminate:
            raise DeadlineExceededError(TOO_LONG) from error
        raise
    finally:
        watch.end(run)
