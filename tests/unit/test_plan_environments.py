"""Cold starts and refused requests of `feedrank plan`, compared with those of single requests."""

from collections.abc import Callable
from math import exp, pi, sin
from typing import NamedTuple

import numpy as np
import pytest

import event_by_event
from feedops.plan.environments import Course, Function, simulate


class Case(NamedTuple):
    """`runs` request by request, whose mean is the truth, to within `apart`."""

    rate: Callable[[float], float]
    peak_per_s: float
    seconds: float
    after_s: float
    service_s: float
    init_s: float
    keep_alive_s: float
    apart: float
    runs: int = 4
    new_in_10_s: int = 1_000
    most: int = 1_000_000


def jump(low: float, high: float, at_s: float) -> Callable[[float], float]:
    return lambda now_s: high if now_s > at_s else low


CASES = {
    "steady, slow requests": Case(lambda _: 30.0, 30.0, 3_000, 100, 0.3, 0.5, 30, 0.05),
    "steady, fast requests": Case(lambda _: 200.0, 200.0, 1_500, 100, 0.02, 0.5, 20, 0.08),
    "a wave": Case(lambda s: 200 + 120 * sin(s / 300 * 2 * pi), 320, 900, 100, 0.06, 0.5, 60, 0.05),
    "a jump": Case(jump(50.0, 500.0, 40.0), 500, 50, 30, 0.02, 0.6, 20, 0.12, 12),
    "a jump from nothing": Case(jump(0.1, 2_000.0, 40.0), 2_000, 50, 30, 0.006, 0.6, 20, 0.03, 2),
}  # fmt: skip
LIMITED = {
    "new environments in 10 s": Case(
        jump(500.0, 5_000.0, 40.0), 5_000, 46, 30, 0.006, 0.6, 20, 0.1, 4, new_in_10_s=100
    ),
    "concurrency": Case(lambda _: 300.0, 300.0, 100, 20, 0.03, 0.5, 60, 0.03, most=10),
}


def planned(case: Case) -> Course:
    times_s = np.arange(case.seconds) + 0.5
    rates = np.array([case.rate(float(time_s)) for time_s in times_s])
    function = Function(case.service_s, case.init_s, case.keep_alive_s, case.most, case.new_in_10_s)
    return simulate(rates, 1.0, function)


def events(case: Case) -> list[event_by_event.Outcome]:
    return [
        event_by_event.run(
            case.rate, case.peak_per_s, case.seconds, service_s=case.service_s, init_s=case.init_s,
            keep_alive_s=case.keep_alive_s, most=case.most, new_in_10_s=case.new_in_10_s,
            seed=seed, after_s=case.after_s,
        )
        for seed in range(case.runs)
    ]  # fmt: skip


def counted(values: np.ndarray, case: Case, course: Course) -> float:
    return float(values[round(case.after_s / course.step_s) :].sum())


@pytest.mark.parametrize("name", CASES)
def test_cold_starts_are_those_of_single_requests(name: str) -> None:
    case = CASES[name]
    course, truth = planned(case), [outcome.cold_starts for outcome in events(case)]
    cold_starts = counted(course.cold_starts, case, course)
    assert cold_starts == pytest.approx(np.mean(truth), rel=case.apart)
    assert counted(course.throttled, case, course) <= 0.1 * max(truth)


@pytest.mark.parametrize("name", LIMITED)
def test_refused_requests_are_those_of_single_requests(name: str) -> None:
    case = LIMITED[name]
    course, truth = planned(case), [outcome.throttled for outcome in events(case)]
    assert min(truth) > 0
    throttled = counted(course.throttled, case, course)
    assert throttled == pytest.approx(np.mean(truth), rel=case.apart)
    assert course.environments.max() <= case.most + 1e-6


def test_a_rate_below_one_request_in_the_keep_alive_time_has_the_closed_form() -> None:
    """A request starts an environment if none came in the keep-alive time before it."""
    rate, keep_alive_s = 0.001, 600.0
    course = simulate(np.full(2_000, rate), 20.0, Function(0.005, 0.5, keep_alive_s, 100, 1_000))
    share = course.cold_starts.sum() / course.requests.sum()
    assert share == pytest.approx(exp(-rate * keep_alive_s), rel=0.02)


def test_environments_leave_when_their_time_is_over() -> None:
    rates = np.where(np.arange(400) < 100, 500.0, 5.0)
    course = simulate(rates, 1.0, Function(0.1, 0.5, 60.0, 1_000, 1_000))
    environments = course.environments[:: round(10 / course.step_s)]
    assert environments[9] > 60
    assert environments[-1] < 8


def test_no_traffic_needs_nothing() -> None:
    rates = np.concatenate([np.zeros(100), np.full(100, 1e-30), np.zeros(100)])
    course = simulate(rates, 1.0, Function(0.1, 0.5, 60.0, 1_000, 1_000))
    assert course.cold_starts.sum() < 1e-20
    assert course.environments.max() < 1e-20
