"""The benchmark's probes run, on the checkout, with hardly any effort. Their figures don't matter
here."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from feedbench.bench import Bench, checkout
from feedbench.measures import warm
from feedbench.results import PLAN


@pytest.fixture(scope="module")
def bench(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(
        target=checkout(demo_bundle),
        development=checkout(demo_bundle),
        bundle=demo_bundle,
        effort=SimpleNamespace(warm_rounds=2, warm_calls=2),
        scratch=tmp_path_factory.mktemp("bench"),
        say=lambda _message: None,
    )


def test_a_warm_request_is_measured_whole_and_by_stage(bench: Bench) -> None:
    rows = list(warm.measure(bench))
    assert [row.key for row in rows] == [
        "warm, 100 items / session.run",
        "warm, 100 items, p99 / p50",
        "warm, 5 items / minimum",
    ]
    assert all(row.value > 0 for row in rows)
    for parts_us in bench.details["warm_parts_us"].values():
        assert list(parts_us) == list(warm.CONTESTS.values())
        assert all(us > 0 for us in parts_us.values())
    stages = list(PLAN["stages"]["warm"])
    for stages_us in bench.details["warm_stages_us"].values():
        assert list(stages_us) == [*stages, warm.REST]
        assert all(stages_us[stage] > 0 for stage in stages), "a stage that nobody calls"
    json.dumps(bench.details)
