"""What a parameter allows can be made: by the stack below it, and by AWS's own limits."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from stack.iam import ID
from stack.transform import PSEUDO, Json, resolved, template, transformed

NESTED = {
    "Data": "infra/data.yaml",
    "Delivery": "infra/delivery.yaml",
    "Observability": "infra/observability.yaml",
}
LONGEST_NAME = "Feed-" + "x" * 59  # 64 characters, as many as Lambda gives a function
ALL_THERE_IS = {
    "WarmStart": "provisioned",
    "DecisionDelivery": "direct",
    "RecordIds": "hashed",
    "AlarmEmail": "on-call@example.com",
    "ModelUri": f"s3://bundles/m/sha256-{'ab' * 32}/",
}


def _passed_on() -> Iterator[tuple[str, str, str]]:
    """Stack, its parameter, and ours whose value it gets as it is."""
    for stack in NESTED:
        for theirs, value in template()["Resources"][stack]["Properties"]["Parameters"].items():
            match value:
                case {"Ref": ours} if ours in template()["Parameters"]:
                    yield stack, theirs, ours


@pytest.mark.parametrize(("stack", "theirs", "ours"), [*_passed_on()])
def test_a_value_is_refused_at_once_and_not_by_a_nested_stack(
    stack: str, theirs: str, ours: str
) -> None:
    """CloudFormation looks at a nested stack's parameters only when it makes that stack."""
    inner = template(NESTED[stack])["Parameters"][theirs]
    outer = template()["Parameters"][ours]
    assert inner["Type"] == outer["Type"]
    assert outer.get("MinValue", float("-inf")) >= inner.get("MinValue", float("-inf"))
    assert outer.get("MaxValue", float("inf")) <= inner.get("MaxValue", float("inf"))
    assert outer.get("MaxLength", 0) <= inner.get("MaxLength", float("inf"))
    if "AllowedValues" in inner:
        assert set(outer["AllowedValues"]) <= set(inner["AllowedValues"])
    if "AllowedPattern" in inner:
        assert outer["AllowedPattern"] == inner["AllowedPattern"]


def test_decisions_are_kept_until_they_may_go() -> None:
    """S3 wants an object to expire after it has moved."""
    days = template()["Parameters"]["DecisionRetentionDays"]["MinValue"]
    stack = resolved(transformed("infra/data.yaml"), DecisionRetentionDays=str(days))
    rules = stack["Resources"]["DecisionsBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (moves,) = (rule for rule in rules if "Transitions" in rule)
    assert int(moves["ExpirationInDays"]) > moves["Transitions"][0]["TransitionInDays"]


def _stacks(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Json]]:
    """Each template of a stack of that name, with what the outermost one passes on."""
    monkeypatch.setitem(PSEUDO, "AWS::StackName", name)
    given = {n: v for n, v in ALL_THERE_IS.items() if n in template()["Parameters"]}
    stacks = {"template.yaml": resolved(transformed(**given), **given)}
    for stack, path in NESTED.items():
        properties = stacks["template.yaml"]["Resources"][stack]["Properties"]
        stacks[path] = resolved(transformed(path), **properties["Parameters"])
    return stacks


def test_every_name_fits_whatever_the_stack_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as AWS's own schemas say."""
    too_long = [
        (path, logical_id, name, value)
        for path, stack in _stacks(LONGEST_NAME, monkeypatch).items()
        for logical_id, resource in stack["Resources"].items()
        for name, value in resource.get("Properties", {}).items()
        if isinstance(value, str) and len(value) > _longest(resource["Type"], name)
    ]
    assert too_long == []


def test_the_longest_name_is_the_longest_that_the_nested_stacks_take() -> None:
    for path in (NESTED["Data"], NESTED["Delivery"]):
        pattern = template(path)["Parameters"]["Name"]["AllowedPattern"]
        assert re.fullmatch(pattern, LONGEST_NAME)
        assert not re.fullmatch(pattern, LONGEST_NAME + "x")
        assert re.fullmatch(
            template(path)["Parameters"]["Id"]["AllowedPattern"],
            ID,
        )


def _longest(kind: str, name: str) -> float:
    limits = {  # which their schemas leave out: Lambda's API, Firehose's, CodeDeploy's convention
        ("AWS::Lambda::Function", "FunctionName"): 64,
        ("AWS::Lambda::LayerVersion", "LayerName"): 64,
        ("AWS::KinesisFirehose::DeliveryStream", "DeliveryStreamName"): 64,
        ("AWS::Athena::WorkGroup", "Name"): 128,
        ("AWS::ApiGatewayV2::Api", "Name"): 128,
        ("AWS::CloudWatch::Alarm", "AlarmName"): 255,
        ("AWS::CloudWatch::Dashboard", "DashboardName"): 255,
    }
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-west-1", kind).schema
    declared: Any = schema["properties"].get(name, {})
    return min(limits.get((kind, name), float("inf")), declared.get("maxLength", float("inf")))


def test_a_key_for_logs_is_the_key_of_every_log_group(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/1"
    monkeypatch.setitem(ALL_THERE_IS, "LogKeyArn", key)
    groups = {
        logical_id: resource["Properties"].get("KmsKeyId")
        for stack in _stacks("feedrank-dev", monkeypatch).values()
        for logical_id, resource in stack["Resources"].items()
        if resource["Type"] == "AWS::Logs::LogGroup"
    }
    assert groups == dict.fromkeys(["FunctionLogs", "AccessLogs", "DeliveryLog", "CanaryLogs"], key)


def test_a_line_of_the_access_log_is_json_whatever_went_wrong() -> None:
    """API Gateway puts values in as they are, so a message could end the JSON; these are codes,
    numbers, ids and our own routes:
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html"""
    harmless = {
        "requestTime", "requestId", "routeKey", "status", "responseLatency", "integrationLatency",
        "responseLength", "protocol", "error.responseType", "integration.status",
        "integration.integrationStatus",
    }  # fmt: skip
    stage = resolved(transformed())["Resources"]["Stage"]["Properties"]
    line = stage["AccessLogSettings"]["Format"]
    assert set(re.findall(r'"\$context\.([\w.]+)"', line)) == harmless
    assert line.count("$") == len(harmless)
    named = json.loads(line)
    assert named["lambda_status"] == "$context.integration.integrationStatus"  # Lambda's own
    assert named["function_status"] == "$context.integration.status"  # what our code answered
