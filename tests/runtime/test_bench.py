"""The benchmark's probes run, on the checkout, with hardly any effort. Their figures don't matter
here."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from feedbench.bench import Bench
from feedbench.measures import aws, cold_start, rich, warm
from feedbench.results import PLAN, REST
from feedops.local.artifact import checkout


@pytest.fixture(scope="module")
def bench(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(
        target=checkout(demo_bundle),
        development=checkout(demo_bundle),
        bundle=demo_bundle,
        effort=SimpleNamespace(warm_blocks={"rounds": 2, "calls": 2}),
        scratch=tmp_path_factory.mktemp("bench"),
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
        assert list(parts_us) == list(PLAN["contests"].values())
        assert all(us > 0 for us in parts_us.values())
    stages = list(PLAN["stages"]["warm"])
    for stages_us in bench.details["warm_stages_us"].values():
        assert list(stages_us) == [*stages, REST]
        assert all(stages_us[stage] > 0 for stage in stages), "a stage that nobody calls"
    json.dumps(bench.details)


def test_a_cold_start_is_told_apart_by_imports_and_stages(bench: Bench) -> None:
    parts_ms = cold_start.stages(bench, bench.events(20, 1))

    planned = set(PLAN["stages"]["cold"])
    imports = {"import fastapi", "import numpy", "import onnxruntime", "import feedrank"}
    assert planned | imports | {"interpreter", "first request"} <= set(parts_ms)
    assert [name for name, ms in parts_ms.items() if name != REST and not ms > 0] == []


def test_the_rich_model_is_published_and_ranks(bench: Bench) -> None:
    rows = list(rich.measure(bench))

    assert [row.key for row in rows] == ["rich model", "whole numbers", "text ids"]
    assert rows[0].value > 0
    assert rows[2].value > 0


def test_features_are_fetched_by_tls_and_from_the_cache(bench: Bench) -> None:
    table, cache = aws.measure_stores(bench)

    assert (table.key, cache.key) == ("features from DynamoDB", "features from the cache")
    assert 0 < cache.value < table.value


def test_a_bundle_starts_from_the_stand_in_for_s3(bench: Bench) -> None:
    bench.effort.bundle_mb, bench.effort.bundle_rounds = [0], 1

    rows = list(aws.measure_bundles(bench))

    assert [row.key for row in rows] == [f"start from S3, {ms} ms a GET" for ms in (0, 20)]
    assert all(row.value > 0 for row in rows)
    assert list(bench.details["init_ms"]["0 MB"]) == ["directory", *aws.S3]
