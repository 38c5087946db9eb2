"""What a run of the benchmark writes, the plan and the report read by the same names."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from feedbench import generator, measures
from feedbench.bench import Bench
from feedbench.measures import servers
from feedbench.report import markdown
from feedbench.results import OURS, PLAN, Results
from feedmodel.demo import rich as rich_model
from feedops.errors import OperationError
from feedops.local.artifact import checkout
from feedops.plan.measured import of_benchmark

LATENCIES_MS = [2.0 + n / 100 for n in range(201)]
INIT_MS, PEAK_MB, OURS_PER_S, OTHERS_PER_S = 600.0, 94.0, 3_000.0, 1_500.0


@pytest.fixture(scope="module", params=PLAN["efforts"])
def results(
    request: pytest.FixtureRequest, demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """The measurements' own, of servers, loads and environments that give these figures."""

    def per_s(name: str, *_: object) -> float:
        return OURS_PER_S if name == OURS else OTHERS_PER_S

    def readings_mb(_bench: Bench, _name: str, *, leak_bytes: int, **_: Any) -> list[float]:
        return [90.0 + n * leak_bytes for n in range(50)]

    async def emulate(*_: object) -> tuple[float, float]:
        return INIT_MS, PEAK_MB

    load = {"latencies_ms": LATENCIES_MS, "requests": len(LATENCIES_MS), "errors": 0}
    replacements: tuple[tuple[Any, str, object], ...] = (
        (measures, "DATA", tmp_path_factory.mktemp("data")),
        (measures, "built_artifact", checkout),
        (servers, "COMPETITORS", Path(sys.prefix)),
        (servers, "_running", lambda _bench, server, *_: nullcontext(server.name)),
        (generator, "requests_per_s", per_s),
        (servers, "front_server", lambda *_, **__: nullcontext("")),
        (generator, "drive", lambda *_: load),
        (rich_model, "publish", lambda *_: demo_bundle),
        (Bench, "probe", readings_mb),
        (Bench, "emulate", emulate),
    )
    only = ["servers", "load", "bundle sizes", "memory"]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in replacements:
            patch.setattr(owner, name, value)
        return measures.measure(lambda: demo_bundle, request.param, only, Console(quiet=True))


def test_the_plan_reads_what_a_run_writes(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")

    measured = of_benchmark(tmp_path / "results.json", 1_769.0)

    assert results.notes == ()
    found = measured.init_ms, measured.used_mb, measured.server_per_s
    assert found == (INIT_MS, PEAK_MB, OURS_PER_S)
    for percent, ms in measured.service.percentiles_ms.items():
        assert ms == pytest.approx(np.percentile(LATENCIES_MS, percent), abs=0.01)


def test_a_run_in_which_no_init_had_a_model_gives_no_plan(results: Results, tmp_path: Path) -> None:
    lost = results.model_copy(deep=True)
    for by_source in lost.details["init_ms"].values():
        by_source["directory"] = None
    lost.write(tmp_path / "results.json")

    with pytest.raises(OperationError, match="not the results of a whole `feedrank bench`"):
        of_benchmark(tmp_path / "results.json", 1_769.0)


def test_the_report_shows_what_a_run_writes(results: Results, tmp_path: Path) -> None:
    text = markdown.write(results, tmp_path).read_text()

    assert "| feedrank | 3,000 | 3,000 | 3,000 |" in text
    assert "| torch + FastAPI | 1,500 | 1,500 | 1,500 |" in text
    sizes = len(PLAN["efforts"][results.effort]["bundle_mb"])
    for source in ("directory", "S3, 0 ms a GET", "S3, 20 ms a GET"):
        assert f"| {source} |{sizes * ' 600 |'}\n" in text
    assert all(row.what in text for row in results.rows)
