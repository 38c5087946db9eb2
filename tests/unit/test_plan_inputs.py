"""What `feedrank plan` reads: the benchmark, logs, curves; and what it makes of a day."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feedops.errors import OperationError
from feedops.plan import options, prices
from feedops.plan.kept_ready import kept_ready, needed
from feedops.plan.measured import BASELINE, Measured, of_benchmark, of_log
from feedops.plan.options import Given
from feedops.plan.traffic import traffic
from feedops.plan.workload import Workload

GIVEN = Given()
# As Lambda writes them, in text and in JSON, where `aws logs tail` puts a time in front.
TEXT = (
    "REPORT RequestId: 8f5-{n}\tDuration: {ms:.2f} ms\tBilled Duration: 6 ms\t"
    "Memory Size: 1024 MB\tMax Memory Used: 97 MB\t{more}\n"
)


def of_text(n: int) -> str:
    more = "Init Duration: 812.50 ms\t" if n == 0 else ""
    return TEXT.format(n=n, ms=1 + n / 100, more=more)


def of_json(n: int) -> str:
    restored = {"restoreDurationMs": 212.5} if n == 0 else {}
    metrics = {
        "durationMs": 1 + n / 100,
        "billedDurationMs": 6,
        "memorySizeMB": 1024,
        "maxMemoryUsedMB": 97,
        **restored,
    }
    report = {
        "time": "t",
        "type": "platform.report",
        "record": {"requestId": n, "metrics": metrics},
    }
    return (
        f"2026-11-25T12:00:00 2026/11/25/[$LATEST]1 {json.dumps(report, separators=(',', ':'))}\n"
    )


@pytest.fixture(scope="module")
def measured() -> Measured:
    return of_benchmark(BASELINE, 1_769.0)


def test_the_benchmark_gives_durations_init_memory_and_the_servers_rate(measured: Measured) -> None:
    details = json.loads(BASELINE.read_text())["details"]
    assert measured.service.percentiles_ms[99] == details["front"]["latency_ms"]["p99"]
    curve = details["front"]["latency_ms"]["curve"]
    assert measured.service.percentiles_ms[95] == pytest.approx(np.quantile(curve, 0.95))
    assert measured.init_ms == details["init_ms"]["10 MB"]["directory"]
    rate = details["servers"]["requests_per_s"]["feedrank"]["50"]["value"]
    assert (measured.server_per_s, measured.used_mb) == (rate, 94.0)


@pytest.mark.parametrize(("line", "start"), [(of_text, "init_ms"), (of_json, "restore_ms")])
def test_report_lines_give_durations_memory_and_starts(
    line: object, start: str, tmp_path: Path, measured: Measured
) -> None:
    assert callable(line)
    log = tmp_path / "log"
    log.write_text("START\n" + "".join(line(n) for n in range(401)))
    found = of_log(log, measured)
    assert found.service.percentiles_ms[50] == pytest.approx(3.0)
    assert found.service.percentiles_ms[99] == pytest.approx(4.96)
    assert (found.memory_mb, found.used_mb, found.source) == (1024.0, 97.0, "log, 401 requests")
    value = {"init_ms": 812.5, "restore_ms": 212.5}[start]
    other = {"init_ms": "restore_ms", "restore_ms": "init_ms"}[start]
    assert getattr(found, start) == value
    assert getattr(found, other) == getattr(measured, other)


def test_a_local_environments_log_gives_the_true_durations(
    tmp_path: Path, measured: Measured
) -> None:
    """Its REPORT lines, which would say 900 ms, are wrong."""
    log = tmp_path / "environment-1.log"
    stamp = "25 Nov 2026 12:00:00,000 [INFO] (rapid) "
    invocation = (
        f"{stamp}INVOKE RTDONE(status: success, produced bytes: 0, duration: 2.500000ms)\n"
        "REPORT RequestId: r\tDuration: 900.00 ms\tBilled Duration: 900 ms\tMemory Size: 3008 MB\n"
    )
    log.write_text(f"{stamp}INIT REPORT(durationMs: 555.500000)\n" + 150 * invocation)
    found = of_log(log, measured)
    assert set(found.service.percentiles_ms.values()) == {2.5}
    assert (found.init_ms, found.memory_mb) == (555.5, measured.memory_mb)


def test_a_days_curves_have_their_peak_and_their_length() -> None:
    for curve in ("constant", "daily", "spiky"):
        day = traffic(curve, 500.0)
        assert day.duration_s == 86_400
        assert day.peak_per_s == pytest.approx(500.0, rel=1e-4)
    daily = traffic("daily", 500.0)
    assert daily.rates_per_s.min() == pytest.approx(100.0, rel=1e-4)
    assert daily.requests == pytest.approx(86_400 * 300.0, rel=1e-6)


def test_a_files_rates_change_evenly_between_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text("seconds,requests_per_s\n0,0\n100,100\n200,100\n")
    course = traffic(str(path), None)
    assert (course.name, course.step_s, course.duration_s) == ("day.csv", 1.0, 200.0)
    assert course.requests == pytest.approx(15_000)
    assert traffic(str(path), 50.0).requests == pytest.approx(7_500, rel=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "the first line must name seconds and requests_per_s"),
        ("seconds,requests_per_s\n1,2\n", "it takes two rows or more"),
        ("seconds,requests_per_s\n2,2\n1,2\n", "seconds that rise"),
        ("seconds,requests_per_s\n1,2\n2,x\n", "line 3: not two numbers"),
        ("seconds,requests_per_s\n1,2\n2\n", "line 3: not two numbers"),
        ("seconds,requests_per_s\n1,nan\n9,2\n", "seconds that rise"),
        ("seconds,requests_per_s\n1,-1\n9,2\n", "rates must not be negative"),
        ("seconds,requests_per_s\n1,1\n1.5,2\n", "cover a second or more"),
        ("seconds,requests_per_s\n1,0\n9,0\n", "no row has a rate above 0"),
    ],
)
def test_a_file_that_is_no_curve_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text(text)
    with pytest.raises(OperationError, match=message):
        traffic(str(path), None)


def test_given_values_replace_the_benchmarks() -> None:
    given = GIVEN._replace(
        percentiles_ms=(4.0, 8.0, 12.0), init_ms=900.0, memory_mb=3_008, server_per_s=700.0
    )
    found = options.workload(given).measured
    assert found.service.percentiles_ms == {50: 4.0, 95: 8.0, 99: 12.0}
    assert (found.init_ms, found.memory_mb, found.server_per_s) == (900.0, 3_008, 700.0)


def workload(curve: str, peak_per_s: float) -> Workload:
    return options.workload(GIVEN._replace(curve=curve, rate_per_s=peak_per_s))


def test_short_requests_need_an_environment_for_each_ten_a_second() -> None:
    assert needed(10_000.0, 0.005) == 1_031
    assert needed(10.0, 2.0) == pytest.approx(35, abs=2)  # Erlang B of 0.001 at 20 Erlangs


def test_a_day_with_a_quiet_night_gets_a_schedule_and_a_constant_one_none() -> None:
    flat, kept = kept_ready(workload("constant", 2_000.0)), kept_ready(workload("daily", 2_000.0))
    assert "BusyMin" not in flat.parameters()
    assert flat.quiet == flat.busy
    assert kept.quiet < kept.busy == flat.busy
    day = workload("daily", 2_000.0).traffic
    ready = kept.per_step(day)
    rates = np.array([needed(float(rate), 0.006) for rate in day.rates_per_s[::360]])
    assert (ready[::360] >= rates).all()
    start, end = kept.busy_from, kept.busy_until
    assert kept.parameters()["BusyFrom"] == f"cron(0 {start} * * ? *)"
    assert ready.sum() * 10 / 3_600 == pytest.approx(
        (end - start) % 24 * kept.busy + (24 - (end - start) % 24) * kept.quiet
    )


def test_tiers_hold_for_what_is_above_the_earlier_ones() -> None:
    assert prices.usd("http_api", 1_000.0) == pytest.approx(300 * 1.00 + 700 * 0.90)
    # 60 TB of Lambda's logs, as published with the tiers in May 2025.
    assert prices.usd("lambda_logs", 60_000.0) == pytest.approx(12_500.0)


@pytest.mark.parametrize("kind", ["price", "quota"])
def test_each_price_and_quota_has_a_source_and_a_date(kind: str) -> None:
    for name, entry in prices.DATA[kind].items():
        assert entry["source"].startswith("https://"), name
        assert entry["checked"] <= prices.DATA["date"], name


def test_a_plan_for_another_memory_size_keeps_the_durations(measured: Measured) -> None:
    larger = options.workload(GIVEN._replace(memory_mb=3_538)).measured
    assert larger == replace(measured, memory_mb=3_538)
