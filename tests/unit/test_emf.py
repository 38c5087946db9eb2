"""The lines of metrics, compared with the ones that Powertools writes."""

import json
from typing import Any

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

import fakes
from feedrank.telemetry.logging import configure
from feedrank.telemetry.metrics import count_init, log_request


def by_powertools(name: str, value: float, **dimensions: str) -> dict[str, Any]:
    metrics = EphemeralMetrics(namespace="n", service="s")
    for key, text in dimensions.items():
        metrics.add_dimension(key, text)
    metrics.add_metric(name, MetricUnit.Milliseconds, value)
    return dict(metrics.serialize_metric_set())


def normal(line: dict[str, Any]) -> dict[str, Any]:
    """The order of dimensions has no meaning, and a value may stand in a list."""
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    (dimensions,) = directive["Dimensions"]
    names = [metric["Name"] for metric in directive["Metrics"]]
    values = {name: line[name] for name in (*dimensions, *names)}
    return {
        "directive": {**directive, "Dimensions": sorted(dimensions)},
        "values": {k: v[0] if isinstance(v, list) else v for k, v in values.items()},
    }


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """A request's line and an init's."""
    configure(fakes.settings(POWERTOOLS_SERVICE_NAME="s", POWERTOOLS_METRICS_NAMESPACE="n"))
    capsys.readouterr()
    log_request({}, {"Latency": 1.5})
    count_init("on-demand", 120.0)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_of_metrics_says_what_powertools_would_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert [normal(line) for line in written(capsys)] == [
        normal(by_powertools("Latency", 1.5)),
        normal(by_powertools("InitDuration", 120.0, init_type="on-demand")),
    ]


def test_its_timestamp_is_in_milliseconds_as_powertools_has_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = by_powertools("Latency", 1.5)["_aws"]["Timestamp"]
    timestamps = [line["_aws"]["Timestamp"] for line in written(capsys)]
    after = by_powertools("Latency", 1.5)["_aws"]["Timestamp"]
    assert [type(timestamp) for timestamp in timestamps] == [int, int]
    assert sorted([before, *timestamps, after]) == [before, *timestamps, after]
