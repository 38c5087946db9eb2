"""Faults, each through the real emulator or uvicorn: an answer within its bound, with an honest
status and `degraded`, and the next request served."""

import os
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import pytest

from long.conftest import Table
from long.faults import FAULTS, REAL, Fault
from long.lab import Lab

LONG = os.environ.get("CHAOS_FAULTS") == "all"
RECOVERY_S = 60.0
HEADINGS = ("fault", "where", "status", "took s", "bound s", "degraded", "next")


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.name) for fault in FAULTS if LONG or fault.short]
)
def test_a_fault_is_bounded_and_honest_and_the_next_request_is_served(
    fault: Fault, demo_bundle: Path, tmp_path: Path, table: Table
) -> None:
    with ExitStack() as stack:
        lab = Lab(tmp_path, demo_bundle, stack)
        fault.prepare(lab)
        if fault.uvicorn:
            lab.under_uvicorn()
        else:
            lab.on_the_local_lambda()
        fault.begin(lab)
        began_s = perf_counter()
        answer = fault.ask(lab)
        took_s = perf_counter() - began_s
        fault.end(lab)
        after = lab.ask()
        recovered = not fault.recovers or until_recovered(lab)
    where = "uvicorn" if fault.uvicorn else "emulator"
    degraded = answer.body.get("degraded")
    found = (answer.status, f"{took_s:.2f}", f"{fault.bound_s:g}", degraded, after.status)
    table(HEADINGS, (fault.name, where, *found))
    assert answer.status == fault.status
    if answer.status == 200:
        assert degraded == (fault.degraded or [])
    served = after.status, after.body.get("degraded", [])
    assert served == fault.next or (fault.recovers and served == REAL)
    assert recovered
    if LONG:
        assert took_s <= fault.bound_s


def until_recovered(lab: Lab) -> bool:
    """Whether the real model serves again before it is too late."""
    limit_s = perf_counter() + RECOVERY_S
    while perf_counter() < limit_s:
        if lab.ask().body.get("degraded") == []:
            return True
    return False
