"""The stack's CloudWatch dashboard, drawn from the logs of local Lambda environments.

The widgets and alarms are those of the template (infra/observability.yaml). A graph whose metrics
exist only in AWS says so.
"""

import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from feedops.cloudwatch.chart import Chart
from feedops.cloudwatch.panels import draw
from feedops.cloudwatch.points import Points, read
from feedops.errors import OperationError
from feedops.stack.template import load, resolved

TEMPLATE = Path(__file__).parents[2] / "observability.yaml"
PERIODS_S = (1, 2, 5, 10, 30, 60, 300, 3_600)
MAX_PERIODS = 60  # in a graph
DPI = 100
LOCAL = {  # parameters that a deployment gives the template
    "FunctionName": "feedrank",
    "ApiId": "local",
    "FunctionLogGroupName": "/aws/lambda/feedrank",
    "Environment": "dev",
    "WarmStart": "none",
    "LogsStreamName": "feedrank-decisions-logs",
    "RequestTimeoutMs": "2000",
    "MemorySize": "1769",
}
COMPARISONS = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
}


def render(logs: Sequence[Path], out: Path, service: str = "feedrank") -> None:
    """Draw the logs of one `feedrank serve`, one file per environment.

    Raises OperationError if they have no metric.
    """
    if out.suffix.lower() != ".png":
        raise OperationError(f"{out}: the picture is a PNG; name a .png file")
    resources = resolved(load(TEMPLATE), {**LOCAL, "Name": service})["Resources"]
    points = read(
        logs,
        api_id=LOCAL["ApiId"],
        log_group=LOCAL["FunctionLogGroupName"],
        filters_namespace=f"feedrank/{service}",
    )
    chart = _chart(points)
    body = json.loads(resources["Dashboard"]["Properties"]["DashboardBody"])
    alarms = {
        name: state_of(resource["Properties"], chart)
        for name, resource in resources.items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(body["widgets"], chart, alarms).savefig(out, dpi=DPI)


def _chart(points: Points) -> Chart:
    """From the first point to the last."""
    times_s = [time_s for values in points.values() for time_s, _ in values if time_s]
    if not times_s:
        raise OperationError("these logs hold no metric: were there requests to /predict?")
    start_s, end_s = min(times_s), max(times_s)
    period_s = next(p for p in PERIODS_S if (end_s - start_s) / p <= MAX_PERIODS)
    start_s -= start_s % period_s
    return Chart(points, start_s, max(int((end_s - start_s) // period_s), 2), period_s)


def state_of(alarm: Mapping[str, Any], chart: Chart) -> str:
    """The alarm's state at the end of the chart, with the chart's periods for its own."""
    *sources, watched = chart.lines(_metrics_of(alarm))
    if any(line.is_only_in_aws for line in sources or [watched]):
        return "no data here"
    recent = watched.values[-alarm["EvaluationPeriods"] :]
    with np.errstate(invalid="ignore"):
        breaching = COMPARISONS[alarm["ComparisonOperator"]](recent, float(alarm["Threshold"]))
    return "ALARM" if breaching.sum() >= alarm["DatapointsToAlarm"] else "OK"


def _metrics_of(alarm: Mapping[str, Any]) -> list[list[Any]]:
    """As a widget has them, the one to compare with the threshold last."""
    if "Metrics" not in alarm:
        return [[*_name(alarm), {"stat": alarm.get("Statistic") or alarm["ExtendedStatistic"]}]]
    metrics = [
        [*_name(metric["MetricStat"]["Metric"]), {"id": metric["Id"], "stat": stat["Stat"]}]
        for metric in alarm["Metrics"]
        if (stat := metric.get("MetricStat"))
    ]
    (expression,) = (m["Expression"] for m in alarm["Metrics"] if "Expression" in m)
    return [*metrics, [{"expression": expression}]]


def _name(metric: Mapping[str, Any]) -> list[str]:
    dimensions = [text for d in metric.get("Dimensions", ()) for text in (d["Name"], d["Value"])]
    return [metric["Namespace"], metric["MetricName"], *dimensions]
