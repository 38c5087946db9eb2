"""Runs and their deadlines."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from time import perf_counter

import numpy as np
import pytest

import endless
import fakes
from feedrank.errors import DeadlineExceededError, ScoringError
from feedrank.model import runs
from feedrank.model.engines.onnx import OnnxEngine
from feedrank.model.runs import Purpose, Run, Watch

ROW = {"features": np.zeros((1, endless.WIDTH), np.float32)}
SOON_S = 0.05
# What hangs is released by nobody: the process has to end by itself.
HANGS = """
import sys, threading
from time import perf_counter
from feedrank.model import runs

class Hanging:
    def score(self, inputs):
        threading.Event().wait(30)
        sys.exit(3)

runs.HUNG_S = 0.1
runs.score(Hanging(), {}, perf_counter() + 0.1, sys.argv[1])
"""


FORKS = """
import os, threading
from time import perf_counter
from feedrank.model import runs

class Stopper:
    ended = threading.Event()
    def __setattr__(self, name, value):
        self.ended.set()

runs.watch.begin(runs.Run(perf_counter() + 100, "server", Stopper()))  # starts the thread
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
runs.watch.begin(runs.Run(perf_counter() + 0.05, "server", Stopper()))
if Stopper.ended.wait(30):
    print("ended", flush=True)
os._exit(0)
"""


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def watch() -> Iterator[Watch]:
    return Watch()


def _run(after_s: float, purpose: Purpose = "server") -> tuple[Run, threading.Event]:
    stopper = fakes.Stopper()
    return Run(perf_counter() + after_s, purpose, stopper), stopper.ended


@pytest.mark.parametrize("purpose", ["lambda", "server", "proof"])
def test_onnx_runtime_ends_a_loop_at_the_deadline(purpose: Purpose) -> None:
    engine = OnnxEngine(endless.in_time(), 1)
    for _ in range(2):  # an engine that was ended once serves on
        with pytest.raises(DeadlineExceededError):
            runs.score(engine, ROW, perf_counter() + SOON_S, purpose)


def test_what_fails_by_itself_is_no_matter_of_time() -> None:
    engine = OnnxEngine(endless.in_time(), 1)
    with pytest.raises(ScoringError):
        runs.score(engine, {}, perf_counter() + 30, "lambda")
    assert not runs.watch.late


def test_a_deadline_before_the_one_that_it_sleeps_to_is_kept(watch: Watch) -> None:
    """Also where the clock went back meanwhile, such as at a restore from a snapshot."""
    far, far_ended = _run(1_000)
    watch.begin(far)
    soon, soon_ended = _run(SOON_S)
    watch.begin(soon)
    assert soon_ended.wait(30)
    assert not far_ended.is_set()


def test_a_run_that_is_over_is_not_ended(watch: Watch) -> None:
    over, over_ended = _run(SOON_S)
    watch.begin(over)
    watch.end(over)
    later, later_ended = _run(2 * SOON_S)
    watch.begin(later)
    assert later_ended.wait(30)
    assert not over_ended.is_set()


def test_the_thread_is_rung_once_for_many_runs(watch: Watch) -> None:
    rings = []
    ring = watch.ring

    def counted() -> None:
        rings.append(1)
        ring()

    watch.ring = counted  # type: ignore[method-assign]
    first, _ = _run(30)
    watch.begin(first)
    while watch._looks_s != first.deadline_s:
        pass
    for _ in range(100):
        run, _ = _run(60)
        watch.begin(run)
        watch.end(run)
    assert len(rings) == 1


def test_only_a_request_s_run_is_late(watch: Watch) -> None:
    proof, ended = _run(-10, "proof")
    watch.begin(proof)
    assert ended.wait(30)
    watch.begin(_run(30)[0])
    assert (watch.late, watch.hangs) == (False, False)
    watch.begin(_run(-10)[0])
    assert watch.late


def _looked_at(run: Run, *after_deadline_s: float) -> Run:
    for after_s in after_deadline_s:
        runs._judge(run, run.deadline_s + after_s)
    return run


def test_a_run_hangs_by_the_time_in_which_it_could_run(watch: Watch) -> None:
    """A container was frozen for ten minutes while a run of a request's was a little late."""
    run, _ = _run(-1_000)
    watch._runs.add(run)
    _looked_at(run, 0.1, 600.1, 600.35)
    assert run.late_s == pytest.approx(0.1 + 2 * runs.LOOK_S)
    assert (watch.late, watch.hangs) == (True, False)
    _looked_at(run, *(600.35 + runs.LOOK_S * n for n in range(1, 12)))
    assert watch.hangs


def test_on_lambda_a_freeze_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[float] = []
    run = Run(100.0, "lambda", None)
    monkeypatch.setattr(runs, "_end_process", lambda: ends.append(run.late_s))
    _looked_at(run, 0.1, 600.0, 1_200.0, 1_800.0)
    assert ends == []
    _looked_at(run, *(1_800.0 + runs.LOOK_S * n for n in range(1, 10)))
    assert ends == [pytest.approx(runs.HUNG_S + 0.1)]


def test_where_no_thread_can_start_a_request_is_served(
    monkeypatch: pytest.MonkeyPatch, log: fakes.LogLines
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(runs, "watch", Watch())
    monkeypatch.setattr(runs, "Thread", Refused)
    scores = runs.score(
        fakes.PriceEngine(),
        {"features": np.full((1, 2), 0.5, np.float32)},
        perf_counter() + 30,
        "lambda",
    )
    assert scores.tolist() == [0.5]
    assert [line["message"] for line in log()] == [
        "no thread for the deadlines: model runs are not ended at theirs"
    ]


def test_the_child_of_a_fork_has_a_watch_of_its_own() -> None:
    done = _python(FORKS)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


@pytest.mark.parametrize(("purpose", "code"), [("lambda", 1), ("server", 3), ("proof", 3)])
def test_a_run_that_hangs_on_lambda_ends_the_process(purpose: str, code: int) -> None:
    hangs = HANGS.replace("wait(30)", "wait(0.5)") if code == 3 else HANGS
    done = _python(hangs, purpose)
    assert done.returncode == code, done.stderr
    assert ("a model run hangs: the process ends" in done.stdout) == (code == 1)
