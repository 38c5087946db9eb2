"""Every metric that exists where the stack runs: the code's, the log filters', the services'."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import fakes
from feedops.stack.template import load, resolved
from feedrank.telemetry.logging import configure
from feedrank.telemetry.metrics import count_init, log_request, request_metrics
from feedrank.telemetry.output import output
from stack.service_metrics import DOCUMENTED, OF_AN_ALIAS

INFRA = Path(__file__).parents[2] / "infra"
NAME = "feedrank-prod"
PARAMETERS = {
    "Name": NAME,
    "Id": "1c2fa620-982a-11e3-aff7-50e2416294e0",
    "Environment": "prod",
    "FunctionName": NAME,
    "AliasName": "live",
    "ApiId": "a1b2c3",
    "FunctionLogGroupName": f"/aws/lambda/{NAME}",
    "WarmStart": "provisioned",
    "DecisionDelivery": "direct",
    "LogsStreamName": f"{NAME}-decisions-logs",
    "DirectStreamName": f"{NAME}-decisions-direct",
    "RequestTimeoutMs": "2000",
    "MemorySize": "1769",
    "SnapshotAgeDays": "7",
    "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:on-call",
}

Metric = tuple[str, str, frozenset[str]]  # namespace, name, names of the dimensions


def resources(template: str, **parameters: str) -> dict[str, Any]:
    made: dict[str, Any] = resolved(load(INFRA / template), PARAMETERS | parameters)["Resources"]
    return made


def of_the_code() -> set[Metric]:
    """Read from the lines that the code prints when it is called with all that can happen."""
    configure(fakes.settings(POWERTOOLS_SERVICE_NAME=NAME))
    ranking = fakes.ranking(snapshot_age_s=86_400.0, warnings=("context: unknown key",))
    printed = io.StringIO()
    with redirect_stdout(printed):
        log_request({}, request_metrics(1.0, 200, ranking))
        output.lost += 1
        log_request({}, request_metrics(1.0, 503, None))
        count_init("on-demand", 1.0)
    return {
        (block["Namespace"], metric["Name"], frozenset(names))
        for line in map(json.loads, printed.getvalue().splitlines())
        for block in line["_aws"]["CloudWatchMetrics"]
        for names in block["Dimensions"]
        for metric in block["Metrics"]
    }


def of_the_log_filters() -> set[Metric]:
    return {
        (made["MetricNamespace"], made["MetricName"], frozenset())
        for template in ("data.yaml", "observability.yaml")
        for resource in resources(template).values()
        if resource["Type"] == "AWS::Logs::MetricFilter"
        for made in resource["Properties"]["MetricTransformations"]
    }


def is_documented(metric: Metric) -> bool:
    namespace, name, dimensions = metric
    sets, names = DOCUMENTED.get(namespace, (set(), set()))
    fits = dimensions in sets and (name not in OF_AN_ALIAS or "Resource" in dimensions)
    return name in names and fits


def unknown(metrics: set[Metric]) -> set[Metric]:
    ours = of_the_code() | of_the_log_filters()
    return {metric for metric in metrics if metric not in ours and not is_documented(metric)}
