"""A model run and its deadline. One past it is ended, where its engine can end a run. One that goes
on for HUNG_S more hangs, and what waits for it waits in vain: a new process has to take over.

Lambda freezes a process between two requests while its clocks go on, so how long a late run has run
is counted look by look, and a freeze counts as one look.
"""

import os
from collections.abc import Mapping
from math import inf
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Literal, NoReturn

from feedrank.domain import FloatArray
from feedrank.errors import DeadlineExceededError, ScoringError
from feedrank.model.engines import ScoringEngine, Stopper, is_stoppable
from feedrank.telemetry.logging import logger

HUNG_S = 3.0  # past its deadline, a run hangs
LOOK_S = 0.25  # between two looks at a late run
TOO_LONG = "the model takes more time than is left"

# On `lambda` a request is alone in its process, so a run that hangs may end that. Elsewhere others
# are served there meanwhile. A `proof` is a load's, and its end nobody waits for.
Purpose = Literal["lambda", "server", "proof"]


class Run:
    """One under way. `deadline_s` and `seen_s` are `time.perf_counter()` seconds; `late_s` is
    for how long it was seen to run past its deadline."""

    __slots__ = ("deadline_s", "late_s", "purpose", "seen_s", "stopper")

    def __init__(self, deadline_s: float, purpose: Purpose, stopper: Stopper | None) -> None:
        self.deadline_s = self.seen_s = deadline_s
        self.late_s = 0.0
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
                try:
                    thread.start()
                except RuntimeError:  # the container has no thread left; the next run tries again
                    logger.warning(
                        "no thread for the deadlines: model runs are not ended at theirs"
                    )
                    return
                self._thread = thread
        self._bell.set()

    @property
    def late(self) -> bool:
        """A request's run is past its deadline."""
        now_s = perf_counter()
        return any(r.purpose != "proof" and r.deadline_s < now_s for r in tuple(self._runs))

    @property
    def hangs(self) -> bool:
        return any(run.late_s >= HUNG_S for run in tuple(self._runs))

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
    if run.purpose == "proof":
        return inf
    run.late_s += min(now_s - run.seen_s, LOOK_S)
    run.seen_s = now_s
    if run.late_s >= HUNG_S and run.purpose == "lambda":
        _end_process()
    return now_s + LOOK_S


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
