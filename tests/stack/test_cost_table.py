"""The README's table of costs counts the metrics and alarms of the templates and the code."""

import re
import tomllib
from typing import Any

from feedops.workspace import PROJECT
from stack.emitted import of_the_code, of_the_log_filters
from stack.transform import resolved, template, transformed

README = (PROJECT / "README.md").read_text()
TABLE = README.partition("### What it costs")[2].partition("**`WarmStart=none`**")[0]
PRICE_OF_AN_ALARM = 0.10  # USD a month for each metric that it watches
PRICE_OF_A_METRIC = 0.30


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
    assert f"{int(row[1]) * PRICE_OF_AN_ALARM:.2f}" in row[3]


def test_the_table_counts_the_custom_metrics_that_are_written() -> None:
    row = _row(r"(\d+) custom metrics, while they get data")
    assert int(row[1]) == len(of_the_code() | of_the_log_filters())
    assert f"{int(row[1]) * PRICE_OF_A_METRIC:.2f}" in row[2]
