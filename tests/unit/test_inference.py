"""Inferences and their deadlines."""

import os
import subprocess
import sys
import threading
from time import perf_counter

import numpy as np
import pytest

import endless
import fakes
from feedrank.errors import DeadlineExceededError, ScoringError
from feedrank.model import inference
from feedrank.model.engines.onnx import OnnxEngine
from feedrank.model.inference import Inference, Purpose, Watchdog

ROW = {"features": np.zeros((1, endless.WIDTH), np.float32)}
SOON_S = 0.05
# Nothing releases the inference that hangs: the process has to end by itself.
HANGS = """
import sys, threading
from time import perf_counter
from feedrank.model import inference

class Hanging:
    def score(self, inputs):
        threading.Event().wait(30)
        sys.exit(3)

def respond():
    print("responds", flush=True)
    raise OSError("nobody listens")

inference.HUNG_S = 0.1
inference.watchdog.before_exit = respond
inference.score(Hanging(), {}, perf_counter() + 0.1, sys.argv[1])
"""


FORKS = """
import os, threading
from time import perf_counter
from feedrank.model import inference

class Stopper:
    ended = threading.Event()
    def __setattr__(self, name, value):
        self.ended.set()

first = inference.Inference(perf_counter() + 100, "server", Stopper())
inference.watchdog.begin(first)  # starts the thread
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
inference.watchdog.begin(inference.Inference(perf_counter() + 0.05, "server", Stopper()))
if Stopper.ended.wait(30):
    print("ended", flush=True)
os._exit(0)
"""


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def watchdog() -> Watchdog:
    return Watchdog()


def _begun(after_s: float, purpose: Purpose = "server") -> tuple[Inference, threading.Event]:
    stopper = fakes.Stopper()
    return Inference(perf_counter() + after_s, purpose, stopper), stopper.ended


@pytest.mark.parametrize("purpose", ["lambda", "server", "self_test"])
def test_onnx_runtime_stops_a_loop_at_the_deadline(purpose: Purpose) -> None:
    engine = OnnxEngine(endless.in_time(), 1)
    for _ in range(2):  # an engine that was stopped once goes on serving
        with pytest.raises(DeadlineExceededError):
            inference.score(engine, ROW, perf_counter() + SOON_S, purpose)


def test_an_error_of_the_engine_is_not_a_timeout() -> None:
    engine = OnnxEngine(endless.in_time(), 1)
    with pytest.raises(ScoringError):
        inference.score(engine, {}, perf_counter() + 30, "lambda")
    assert not inference.watchdog.late


def test_a_deadline_earlier_than_the_one_that_it_sleeps_until_is_met(watchdog: Watchdog) -> None:
    """Also where the clock went back meanwhile, such as at a restore from a snapshot."""
    far, far_ended = _begun(1_000)
    watchdog.begin(far)
    soon, soon_ended = _begun(SOON_S)
    watchdog.begin(soon)
    assert soon_ended.wait(30)
    assert not far_ended.is_set()


def test_an_inference_that_has_ended_is_not_stopped(watchdog: Watchdog) -> None:
    over, over_ended = _begun(SOON_S)
    watchdog.begin(over)
    watchdog.end(over)
    later, later_ended = _begun(2 * SOON_S)
    watchdog.begin(later)
    assert later_ended.wait(30)
    assert not over_ended.is_set()


def test_the_thread_is_woken_once_for_many_inferences(watchdog: Watchdog) -> None:
    calls = []
    wake = watchdog.wake

    def counting_wake() -> None:
        calls.append(1)
        wake()

    watchdog.wake = counting_wake  # type: ignore[method-assign]
    first, _ = _begun(30)
    watchdog.begin(first)
    while watchdog._next_check_s != first.deadline_s:
        pass
    for _ in range(100):
        later, _ = _begun(60)
        watchdog.begin(later)
        watchdog.end(later)
    assert len(calls) == 1


def test_only_a_requests_inference_is_late(watchdog: Watchdog) -> None:
    self_test, ended = _begun(-10, "self_test")
    watchdog.begin(self_test)
    assert ended.wait(30)
    watchdog.begin(_begun(30)[0])
    assert (watchdog.late, watchdog.hangs) == (False, False)
    watchdog.begin(_begun(-10)[0])
    assert watchdog.late


def _check(late: Inference, *after_deadline_s: float) -> None:
    for after_s in after_deadline_s:
        inference._check(late, late.deadline_s + after_s)


def test_an_inference_hangs_by_the_time_in_which_it_could_run(watchdog: Watchdog) -> None:
    """A container was frozen for ten minutes while the inference of a request was a little late."""
    late, _ = _begun(-1_000)
    watchdog._inferences.add(late)
    _check(late, 0.1, 600.1, 600.35)
    assert late.late_s == pytest.approx(0.1 + 2 * inference.CHECK_S)
    assert (watchdog.late, watchdog.hangs) == (True, False)
    _check(late, *(600.35 + inference.CHECK_S * n for n in range(1, 12)))
    assert watchdog.hangs


def test_on_lambda_a_freeze_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[float] = []
    late = Inference(100.0, "lambda", None)
    monkeypatch.setattr(inference, "_end_process", lambda: ends.append(late.late_s))
    _check(late, 0.1, 600.0, 1_200.0, 1_800.0)
    assert ends == []
    _check(late, *(1_800.0 + inference.CHECK_S * n for n in range(1, 10)))
    assert ends == [pytest.approx(inference.HUNG_S + 0.1)]


def test_a_request_is_served_even_if_no_thread_can_start(
    monkeypatch: pytest.MonkeyPatch, log: fakes.LogLines
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(inference, "watchdog", Watchdog())
    monkeypatch.setattr(inference, "Thread", Refused)
    scores = inference.score(
        fakes.PriceEngine(),
        {"features": np.full((1, 2), 0.5, np.float32)},
        perf_counter() + 30,
        "lambda",
    )
    assert scores.tolist() == [0.5]
    assert [line["message"] for line in log()] == [
        "no thread for the deadlines: inferences are not stopped at theirs"
    ]


def test_the_child_of_a_fork_has_its_own_watchdog() -> None:
    process = _python(FORKS)
    assert (process.returncode, process.stdout) == (0, "ended\n"), process.stderr


@pytest.mark.parametrize(("purpose", "code"), [("lambda", 1), ("server", 3), ("self_test", 3)])
def test_an_inference_that_hangs_on_lambda_ends_the_process(purpose: str, code: int) -> None:
    hangs = HANGS.replace("wait(30)", "wait(0.5)") if code == 3 else HANGS
    process = _python(hangs, purpose)
    assert process.returncode == code, process.stderr
    messages = ("responds", "the request got no response", "an inference hangs: the process ends")
    assert [text in process.stdout for text in messages] == [code == 1] * 3
