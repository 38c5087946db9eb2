"""The dashboard names only metrics that exist, and can be drawn from local logs."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedops.cloudwatch.chart import Chart
from feedops.cloudwatch.dashboard import render
from feedops.cloudwatch.points import read
from feedops.errors import OperationError
from stack.emitted import NAME, Metric, of_the_code, resources, unknown

SECTIONS = [
    "## Are users served?",
    "## Is it slow because of init, features or model?",
    "## Are environments warm?",
    "## Are scores and unknown rates sane?",
    "## Are live features fresh?",
    "## Is the decision log whole?",
    "## What does it cost?",
]
STATISTIC = re.compile(r"Sum|Average|Minimum|Maximum|SampleCount|p\d\d?")
SEARCH = re.compile(r"SEARCH\('\{([^}]*)\} MetricName=\"(\w+)\"")


def _widgets(**parameters: str) -> list[dict[str, Any]]:
    body = resources("observability.yaml", **parameters)["Dashboard"]["Properties"]["DashboardBody"]
    widgets: list[dict[str, Any]] = json.loads(body)["widgets"]
    return widgets


def _metrics(widget: dict[str, Any]) -> list[list[Any]]:
    metrics: list[list[Any]] = widget["properties"].get("metrics", [])
    return metrics


def _metrics_of(widget: dict[str, Any]) -> set[Metric]:
    metrics: set[Metric] = set()
    for *metric, options in _metrics(widget):
        if metric:
            metrics.add((metric[0], metric[1], frozenset(metric[2::2])))
        elif match := SEARCH.match(options["expression"]):
            namespace, *dimensions = match[1].split(",")
            metrics.add((namespace, match[2], frozenset(dimensions)))
    return metrics


@pytest.mark.parametrize(
    "widget", _widgets(), ids=lambda w: w["properties"].get("title", w["type"])
)
def test_a_graph_names_metrics_that_exist(widget: dict[str, Any]) -> None:
    assert unknown(_metrics_of(widget)) == set()


def test_every_metric_of_the_function_is_on_the_dashboard() -> None:
    metrics = set().union(*map(_metrics_of, _widgets()))
    assert of_the_code() - metrics == set()


def test_sections_are_in_order_of_urgency() -> None:
    texts = [w["properties"]["markdown"] for w in _widgets() if w["type"] == "text"]
    assert texts[1:] == SECTIONS


def test_a_title_is_a_question() -> None:
    titles = [w["properties"]["title"] for w in _widgets() if w["type"] != "text"]
    assert [title for title in titles if "?" not in title] == []
    assert len(set(titles)) == len(titles)


def test_widgets_fill_the_grid_and_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    widgets = _widgets()
    for widget in widgets:
        x, y, width, height = (widget[key] for key in ("x", "y", "width", "height"))
        covered = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert not cells & covered
        cells |= covered
    rows = max(w["y"] + w["height"] for w in widgets)
    assert len(cells) == 24 * rows


def test_statistics_and_ids_are_valid() -> None:
    for widget in _widgets():
        ids = [metric[-1]["id"] for metric in _metrics(widget) if "id" in metric[-1]]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch("[a-z][a-zA-Z0-9_]*", name) for name in ids)
        for *metric, options in _metrics(widget):
            assert not metric or STATISTIC.fullmatch(options["stat"])


def test_expressions_use_only_ids_of_their_graph() -> None:
    chart = Chart({}, 0.0, 3, 60.0)
    for widget in _widgets():
        chart.lines(_metrics(widget))  # raises KeyError for an unknown id


def test_dimensions_have_the_values_of_the_deployment() -> None:
    values = {
        "service": NAME,
        "ApiId": "a1b2c3",
        "FunctionName": NAME,
        "Resource": f"{NAME}:live",
        "DeliveryStreamName": f"{NAME}-decisions-direct",
        "LogGroupName": f"/aws/lambda/{NAME}",
    }
    for widget in _widgets():
        for *metric, _options in _metrics(widget):
            dimensions = dict(zip(metric[2::2], metric[3::2], strict=True))
            assert dimensions == {key: values[key] for key in dimensions}


def test_without_the_direct_stream_the_other_is_shown() -> None:
    body = json.dumps(_widgets(DecisionDelivery="logs"))
    assert f"{NAME}-decisions-logs" in body
    assert "decisions-direct" not in body


def test_every_alarm_of_the_stack_is_on_the_dashboard() -> None:
    for parameters in ({}, {"DecisionDelivery": "logs", "WarmStart": "none"}):
        stack = resources("observability.yaml", **parameters)
        alarms = [n for n, r in stack.items() if r["Type"] == "AWS::CloudWatch::Alarm"]
        (widget,) = (w for w in _widgets(**parameters) if w["type"] == "alarm")
        assert [arn.rpartition(":")[2] for arn in widget["properties"]["alarms"]] == alarms


# ---- The picture ---------------------------------------------------------------------------------

EMULATOR_LOG = """\
23 Nov 2026 00:36:50,000 [INFO] (rapid) INIT START(type: on-demand, phase: init)
{"_aws":{"Timestamp":%(start)d,"CloudWatchMetrics":[{"Namespace":"feedrank","Dimensions":[["init_type","service"]],"Metrics":[{"Name":"InitDuration","Unit":"Milliseconds"}]}]},"service":"feedrank","init_type":"on-demand","InitDuration":[600.0]}
23 Nov 2026 00:36:50,700 [INFO] (rapid) INIT REPORT(durationMs: 650.5)
START RequestId: one Version: $LATEST
{"level":"INFO","message":"request","_aws":{"Timestamp":%(first)d,"CloudWatchMetrics":[{"Namespace":"feedrank","Dimensions":[["service"]],"Metrics":[{"Name":"Latency","Unit":"Milliseconds"},{"Name":"ItemsScored","Unit":"Count"}]}]},"service":"feedrank","route":"/predict","status":200,"latency_ms":2.5,"Latency":2.5,"ItemsScored":50}
23 Nov 2026 00:36:51,000 [INFO] (rapid) INVOKE RTDONE(status: success, produced bytes: 0, duration: 3.2ms)
END RequestId: one
REPORT RequestId: one	Init Duration: 0.02 ms	Duration: 653.7 ms	Billed Duration: 654 ms	Memory Size: 1769 MB
{"level":"INFO","message":"request","_aws":{"Timestamp":%(second)d,"CloudWatchMetrics":[{"Namespace":"feedrank","Dimensions":[["service"]],"Metrics":[{"Name":"Latency","Unit":"Milliseconds"}]}]},"service":"feedrank","route":"/predict","status":503,"latency_ms":0.5,"Latency":0.5}
"""  # noqa: E501 the lines are as they are
START_MS = 1_795_394_210_000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "environment-1.log"
    times = {"start": START_MS, "first": START_MS + 1_000, "second": START_MS + 4_000}
    path.write_text(EMULATOR_LOG % times)
    return path


@pytest.fixture
def chart(log: Path) -> Chart:
    points = read([log], api_id="local", log_group="/f", filters_namespace="feedrank/feedrank")
    return Chart(points, START_MS / 1_000, 5, 1.0)


def _values(chart: Chart, *metrics: list[Any]) -> list[tuple[str, list[float]]]:
    return [(line.label, line.values.tolist()) for line in chart.lines(metrics)]


def test_metrics_are_read_from_the_log_of_an_environment(chart: Chart) -> None:
    nan = np.nan
    lines = _values(
        chart,
        ["feedrank", "Latency", "service", "feedrank", {"stat": "Average", "label": "mean"}],
        ["feedrank", "ItemsScored", "service", "feedrank", {"stat": "SampleCount", "label": "n"}],
        ["AWS/ApiGateway", "5xx", "ApiId", "local", {"stat": "Sum", "label": "5xx"}],
        ["AWS/Lambda", "Throttles", "FunctionName", "f", {"stat": "Sum", "label": "none"}],
    )
    np.testing.assert_equal(
        lines,
        [
            ("mean", [nan, 2.5, nan, nan, 0.5]),
            ("n", [nan, 1.0, nan, nan, nan]),
            ("5xx", [nan, 0.0, nan, nan, 1.0]),
            ("none", [nan] * 5),
        ],
    )


def test_billed_time_includes_the_init_and_is_rounded_up(log: Path) -> None:
    points = read([log], api_id="local", log_group="/f", filters_namespace="below")
    assert [value for _, value in points["below", "BilledDuration", frozenset()]] == [654]


def test_a_search_has_a_line_per_metric(chart: Chart) -> None:
    search = (
        'SEARCH(\'{feedrank,service,init_type} MetricName="InitDuration" service="feedrank"\', '
        "'Maximum', 60)"
    )
    (line,) = _values(chart, [{"expression": search, "label": "", "id": "inits"}])
    np.testing.assert_equal(line, ("on-demand", [600.0, *[np.nan] * 4]))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("100 * a / b", [50.0, np.nan, np.inf]),
        ("FILL(a, 0)", [1.0, 0.0, 3.0]),
        ("IF(b >= 1 AND FILL(a, 0) == 1, 1, 0)", [1.0, 0.0, 0.0]),
        ("MAX([a, b])", [2.0, 4.0, 3.0]),
        ("60 / PERIOD(a)", [60.0, 60.0, 60.0]),
    ],
)
def test_metric_math(expression: str, expected: list[float]) -> None:
    by_id = {"a": np.array([1.0, np.nan, 3.0]), "b": np.array([2.0, 4.0, 0.0])}
    chart = Chart({}, 0.0, 3, 1.0)
    np.testing.assert_equal(chart.calculated(expression, by_id), np.array(expected))


def test_unknown_metric_math_is_refused() -> None:
    with pytest.raises(ValueError, match="not known here"):
        Chart({}, 0.0, 1, 1.0).calculated("a ** 2 if 1 else 0", {})


def test_the_picture_is_drawn(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "dashboard.png"
    render([log], out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_logs_without_a_metric_are_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "environment-1.log"
    empty.write_text("nothing\n")
    with pytest.raises(OperationError, match="no metric"):
        render([empty], tmp_path / "dashboard.png")
