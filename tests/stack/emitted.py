"""Every metric that exists in a deployed stack: the code's, the log filters', the services'."""

from pathlib import Path
from typing import Any

from feedops.stack.template import load, resolved
from feedrank.settings import Settings
from feedrank.telemetry.metrics import METRICS
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
    "LiveFeatures": "all",
    "FeaturesTableName": "rows",
    "FeatureAgeMinutes": "15",
    "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:on-call",
}

Metric = tuple[str, str, frozenset[str]]  # namespace, name, names of the dimensions


def resources(template: str, **parameters: str) -> dict[str, Any]:
    result: dict[str, Any] = resolved(load(INFRA / template), PARAMETERS | parameters)["Resources"]
    return result


def of_the_code() -> set[Metric]:
    """All that it declares; `test_telemetry.py` compares that with what it writes."""
    namespace = Settings.model_fields["metrics_namespace"].default
    return {(namespace, name, frozenset(metric.dimensions)) for name, metric in METRICS.items()}


def of_the_log_filters() -> set[Metric]:
    return {
        (metric["MetricNamespace"], metric["MetricName"], frozenset())
        for template in ("data.yaml", "observability.yaml")
        for resource in resources(template).values()
        if resource["Type"] == "AWS::Logs::MetricFilter"
        for metric in resource["Properties"]["MetricTransformations"]
    }


def is_documented(metric: Metric) -> bool:
    namespace, name, dimensions = metric
    sets, names = DOCUMENTED.get(namespace, (set(), set()))
    fits = dimensions in sets and (name not in OF_AN_ALIAS or "Resource" in dimensions)
    return name in names and fits


def unknown(metrics: set[Metric]) -> set[Metric]:
    ours = of_the_code() | of_the_log_filters()
    return {metric for metric in metrics if metric not in ours and not is_documented(metric)}
