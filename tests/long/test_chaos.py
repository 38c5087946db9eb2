"""Faults, each in the real emulator or under uvicorn: a response within its limit, with the right
status and `degraded`, and the next request is served."""

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
HEADINGS = ("fault", "where", "status", "took s", "limit s", "degraded", "next")


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.name) for fault in FAULTS if LONG or fault.short]
)
def test_a_fault_is_bounded_and_reported_and_the_next_request_is_served(
    fault: Fault, demo_bundle: Path, tmp_path: Path, table: Table, moto_url: str
) -> None:
    with ExitStack() as stack:
        lab = Lab(tmp_path, demo_bundle, stack, moto_url)
        fault.prepare(lab)
        if fault.uvicorn:
            lab.under_uvicorn()
        else:
            lab.on_the_local_lambda()
        fault.begin(lab)
        began_s = perf_counter()
        response = fault.send(lab)
        took_s = perf_counter() - began_s
        fault.end(lab)
        after = lab.send()
        recovered = not fault.recovers or recovers_in_time(lab)
    where = "uvicorn" if fault.uvicorn else "emulator"
    degraded = response.body.get("degraded")
    outcome = (response.status, f"{took_s:.2f}", f"{fault.bound_s:g}", degraded, after.status)
    table(HEADINGS, (fault.name, where, *outcome))
    assert response.status == fault.status
    if response.status == 200:
        assert degraded == (fault.degraded or [])
    served = after.status, after.body.get("degraded", [])
    assert served == fault.next or (fault.recovers and served == REAL)
    assert recovered
    if LONG:
        assert took_s <= fault.bound_s


def recovers_in_time(lab: Lab) -> bool:
    """Whether the real model serves again within the limit."""
    limit_s = perf_counter() + RECOVERY_S
    while perf_counter() < limit_s:
        if lab.send().body.get("degraded") == []:
            return True
    return False
