"""The benchmark's probes run, on the checkout, with next to no effort. What they measure is not
looked at here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from feedbench import warm
from feedbench.plan import QUICK, Plan
from feedbench.target import checkout


@pytest.fixture(scope="module")
def plan(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return Plan(
        target=checkout(),
        development=checkout(),
        rivals=None,
        bundle=demo_bundle,
        effort=replace(QUICK, warm_rounds=2, warm_calls=2),
        scratch=tmp_path_factory.mktemp("bench"),
        say=lambda _message: None,
    )


def test_a_warm_request_is_measured_whole_and_by_stage(plan: Plan) -> None:
    found = warm.measure(plan)
    assert [row.key for row in found.rows] == [
        "warm, 100 items / session.run",
        "warm, 100 items, p99 / p50",
        "warm, 5 items / minimum",
    ]
    assert all(row.value > 0 for row in found.rows)
    for parts_us in found.details["warm_parts_us"].values():
        assert list(parts_us) == list(warm.CONTESTS.values())
        assert all(us > 0 for us in parts_us.values())
    for stages_us in found.details["warm_stages_us"].values():
        assert list(stages_us) == [*warm.STAGES, warm.REST]
        assert all(stages_us[stage] > 0 for stage in warm.STAGES), "a stage that nobody calls"
    json.dumps(found.details)
