"""The stack's CloudWatch dashboard, drawn with what local environments have logged.

The widgets are the template's own (infra/observability.yaml); a graph whose metrics only AWS has
says so.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from feedops.cloudwatch.metrics import Array, Chart, Points, read
from feedops.cloudwatch.panels import draw, of_aws
from feedops.errors import OperationError
from feedops.stack.template import load, resolved

TEMPLATE = Path(__file__).parents[2] / "observability.yaml"
PERIODS_S = (1, 2, 5, 10, 30, 60, 300, 3_600)
POINTS = 60  # that a graph has at most
DPI = 100
LOCAL = {  # what a deployment would have given the template
    "FunctionName": "feedrank",
    "ApiId": "local",
    "FunctionLogGroupName": "/aws/lambda/feedrank",
    "Environment": "dev",
    "WarmStart": "none",
    "LogsStreamName": "feedrank-decisions-logs",
    "RequestTimeoutMs": "2000",
    "MemorySize": "1769",
}


def render(logs: Sequence[Path], out: Path, service: str = "feedrank") -> None:
    """Draw the logs of one run, one file an environment. Raises OperationError without a metric."""
    if out.suffix.lower() != ".png":
        raise OperationError(f"{out}: the picture is a PNG; name a .png file")
    parameters = {**LOCAL, "Name": service}
    resources = resolved(load(TEMPLATE), parameters)["Resources"]
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
    """Over the time from the first point to the last, in periods of a round length."""
    times_s = [at for values in points.values() for at, _ in values if at]
    if not times_s:
        raise OperationError("these logs hold no metric: were there requests to /predict?")
    start_s, end_s = min(times_s), max(times_s)
    period_s = next(p for p in PERIODS_S if (end_s - start_s) / p <= POINTS)
    start_s -= start_s % period_s
    return Chart(points, start_s, max(int((end_s - start_s) // period_s), 2), period_s)


def state_of(alarm: dict[str, Any], chart: Chart) -> str:
    """What the alarm would say at the run's end, its periods as short as the graphs'."""
    if "Metrics" in alarm:
        values, complete = _alarm_math(alarm["Metrics"], chart)
        if not complete:
            return "no data here"
    else:
        stat = alarm.get("Statistic") or alarm["ExtendedStatistic"]
        dimensions = frozenset((d["Name"], d["Value"]) for d in alarm.get("Dimensions", ()))
        values = chart.statistic((alarm["Namespace"], alarm["MetricName"], dimensions), stat)
        if np.isnan(values).all() and of_aws(alarm["Namespace"]):
            return "no data here"
    recent = values[-alarm["EvaluationPeriods"] :]
    threshold = float(alarm["Threshold"])
    with np.errstate(invalid="ignore"):
        breaching = {
            "GreaterThanThreshold": recent > threshold,
            "GreaterThanOrEqualToThreshold": recent >= threshold,
            "LessThanThreshold": recent < threshold,
        }[alarm["ComparisonOperator"]]
    return "ALARM" if breaching.sum() >= alarm["DatapointsToAlarm"] else "OK"


def _alarm_math(metrics: Sequence[dict[str, Any]], chart: Chart) -> tuple[Array, bool]:
    """What the alarm watches, and whether this machine has all that goes in."""
    by_id = {}
    complete = True
    for metric in metrics:
        if "MetricStat" in metric:
            source = metric["MetricStat"]["Metric"]
            dimensions = frozenset((d["Name"], d["Value"]) for d in source["Dimensions"])
            key = (source["Namespace"], source["MetricName"], dimensions)
            by_id[metric["Id"]] = chart.statistic(key, metric["MetricStat"]["Stat"])
            complete &= not (of_aws(key[0]) and np.isnan(by_id[metric["Id"]]).all())
    expression = next(metric["Expression"] for metric in metrics if "Expression" in metric)
    return chart.calculated(expression, by_id), complete
