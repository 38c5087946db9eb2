"""The README's table of costs has the prices and amounts of `feedrank plan`, as the dashboard has,
and counts the metrics and alarms of the templates and the code."""

import re
import tomllib
from typing import Any

import numpy as np
import pytest

from feedops.plan.bill import of_gateway, of_lambda, of_provisioned, of_snapstart
from feedops.plan.measured import Measured
from feedops.plan.prices import assumption, usd
from feedops.plan.service_time import ServiceTime
from feedops.plan.traffic import Traffic
from feedops.plan.workload import Workload
from feedops.workspace import PROJECT
from feedrank.telemetry.metrics import ROW_METRICS
from stack.emitted import of_the_code, of_the_log_filters
from stack.transform import resolved, template, transformed

README = (PROJECT / "README.md").read_text()
TABLE = README.partition("### What it costs")[2].partition("**`WarmStart=none`**")[0]
LIVE = {*ROW_METRICS.values(), "RowsRefused", "OldestRow"}  # written where rows are read


def _row(words: str) -> re.Match[str]:
    row = re.search(rf"^\| {words} \|(.*)\|$", TABLE, re.MULTILINE)
    assert row, words
    return row


def _watched(**parameters: str) -> int:
    """The number of metrics in all alarms; CloudWatch bills each, also within expressions."""
    alarms: list[dict[str, Any]] = []
    for path in ("infra/delivery.yaml", "infra/observability.yaml"):
        stack = resolved(transformed(path), **_known(path, parameters))
        alarms += (
            resource["Properties"]
            for resource in stack["Resources"].values()
            if resource["Type"] == "AWS::CloudWatch::Alarm"
        )
    return sum(
        sum("MetricStat" in metric for metric in alarm.get("Metrics", ())) or 1 for alarm in alarms
    )


def _known(path: str, parameters: dict[str, str]) -> dict[str, str]:
    """The parameters that the template declares, with the outermost template's defaults."""
    defaults = {
        name: str(parameter["Default"])
        for name, parameter in template()["Parameters"].items()
        if "Default" in parameter
    }
    declared = template(path)["Parameters"]
    return {name: value for name, value in (defaults | parameters).items() if name in declared}


def _of_prod() -> dict[str, str]:
    config = tomllib.loads((PROJECT / "samconfig.toml").read_text())
    overrides = config["prod"]["deploy"]["parameters"]["parameter_overrides"]
    return dict(each.split("=", 1) for each in overrides)


def test_alarms_cost_what_the_table_says() -> None:
    row = _row(r"(\d+) alarm metrics, (\d+) in `prod` and 2 of its scaling")
    assert (int(row[1]), int(row[2])) == (_watched(), _watched(**_of_prod()))
    assert int(row[1]) == assumption("alarms")
    assert f"{usd('alarm', int(row[1])):.2f}" in row[3]


def test_the_table_counts_the_custom_metrics_that_are_written() -> None:
    row = _row(r"(\d+) custom metrics, while they get data; (\d+) more of live features")
    live = {metric for metric in of_the_code() if metric[1] in LIVE}
    assert int(row[1]) == len((of_the_code() | of_the_log_filters()) - live)
    assert int(row[2]) == len(live)
    assert int(row[1]) == assumption("metrics")
    assert f"{usd('metric', int(row[1])):.2f}" in row[3]


def bill(rate_per_s: float) -> dict[str, float]:
    """Of the function on demand as the table assumes it: 5 ms billed, no cold start counted."""
    service = ServiceTime({50.0: 4.8, 99.0: 4.9})
    assert service.billed_ms == 5.0
    measured = Measured("table", service, 1_000.0, 300.0, 1_769.0, 2_000.0)
    day = Traffic("constant", 10.0, np.full(8_640, rate_per_s))
    workload = Workload(day, measured, keep_alive_s=600.0, target_p99_ms=300.0)
    requests = day.requests
    on_demand = of_lambda(workload, warm=requests, cold=0.0, init_ms=0.0)
    kept = of_provisioned(workload, requests=requests, kept_s=2 * 86_400.0)
    snapshots = of_snapstart(workload, requests=requests, restores=1_000 / 30)
    return {
        **of_gateway(workload),
        **on_demand,
        "provisioned": kept["provisioned concurrency"],
        "saved duration": on_demand["Lambda duration"] - kept["Lambda duration"],
        "cache": snapshots["SnapStart, cache"],
        "restores": snapshots["SnapStart, restores"],
    }


ROWS = {  # words of the row: the names of its prices, and of its line in the plan's bill
    "HTTP API": (("http_api",), "HTTP API"),
    "Lambda, requests": (("lambda_requests",), "Lambda requests"),
    "Lambda, duration: [^|]*": (("lambda_duration",), "Lambda duration"),
    "logs: [^|]*": (("lambda_logs",), "logs"),
    "Firehose: [^|]*": (
        ("firehose", "firehose_partitioning", "firehose_decompression"),
        "Firehose",
    ),
    r"\d+ custom metrics, [^|]*": (("metric",), "metrics"),
    "storage, logs and S3": (("log_storage", "s3"), "storage"),
}


@pytest.mark.parametrize("words", ROWS)
def test_the_table_has_the_plans_prices_and_amounts(words: str) -> None:
    names, line = ROWS[words]
    price, _idle, one, hundred = _row(words)[1].split("|")
    stated = [float(number) for number in re.findall(r"\d+\.\d+", price)]
    assert stated == [usd(name) for name in names]
    assert float(one) == pytest.approx(bill(1.0)[line], abs=0.006)
    assert float(hundred) == pytest.approx(bill(100.0)[line], abs=0.006)


def test_the_table_has_the_plans_totals() -> None:
    after = README.partition("**`WarmStart=none`**")[2].splitlines()[0]
    _, idle, one, hundred, _ = (re.sub(r"[* ]", "", cell) for cell in after.split("|")[1:])
    extra = {"provisioned", "saved duration", "cache", "restores"}
    for amount, rate in ((one, 1.0), (hundred, 100.0)):
        total = sum(usd for name, usd in bill(rate).items() if name not in extra)
        assert int(amount) == round(total)
    assert int(idle) == round(bill(1.0)["alarms"])


def test_the_table_has_the_plans_prices_of_warm_starts() -> None:
    amounts = bill(100.0)
    kept = re.search(r"^\| `provisioned`, 2 .*", README, re.MULTILINE)
    snapshots = re.search(r"^\| `snapstart` .*", README, re.MULTILINE)
    assert kept
    assert snapshots
    assert f"x {usd('lambda_provisioned'):.10f} a GB-s" in kept[0]
    assert f"+ {amounts['provisioned']:.2f}, - {amounts['saved duration']:.2f} duration" in kept[0]
    assert f"x {usd('snapstart_cache'):.10f} a GB-s" in snapshots[0]
    assert f"+ {amounts['cache']:.2f}, and {amounts['restores']:.2f} for" in snapshots[0]


def test_the_dashboard_has_the_plans_prices() -> None:
    expressions = (PROJECT / "infra/observability.yaml").read_text()
    for name in ("lambda_duration", "lambda_provisioned"):
        assert f"/ 1024 * {usd(name):.10f}" in expressions
    per_million = f"({usd('lambda_requests'):.2f} + {usd('http_api'):.2f}) / 1000000"
    assert f"requests * {per_million}" in expressions
    assert f"logged / 1073741824 * {usd('lambda_logs'):.2f}" in expressions
