"""Every value that a parameter allows is valid in the nested stacks and within AWS's limits."""

import json
import re
import string
from collections.abc import Iterator
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from feedrank.errors import SettingsError
from feedrank.settings import Settings
from stack.iam import ID
from stack.transform import PSEUDO, Json, resolved, template, transformed

NESTED = {
    "Data": "infra/data.yaml",
    "Delivery": "infra/delivery.yaml",
    "Observability": "infra/observability.yaml",
}
LONGEST_NAME = "Feed-" + "x" * 59  # 64 characters, Lambda's limit for a function's name
EVERY_OPTION = {
    "WarmStart": "provisioned",
    "DecisionDelivery": "direct",
    "RecordIds": "hashed",
    "LiveFeatures": "all",
    "AlarmEmail": "on-call@example.com",
    "ModelUri": f"s3://bundles/m/sha256-{'ab' * 32}/",
}


def _passed_on() -> Iterator[tuple[str, str, str]]:
    """A nested stack, its parameter, and the outer parameter whose value is passed on unchanged."""
    for stack in NESTED:
        for inner_name, value in template()["Resources"][stack]["Properties"]["Parameters"].items():
            match value:
                case {"Ref": outer_name} if outer_name in template()["Parameters"]:
                    yield stack, inner_name, outer_name


@pytest.mark.parametrize(("stack", "inner_name", "outer_name"), [*_passed_on()])
def test_a_value_is_rejected_at_once_and_not_by_a_nested_stack(
    stack: str, inner_name: str, outer_name: str
) -> None:
    """CloudFormation validates a nested stack's parameters only when it creates that stack."""
    inner = template(NESTED[stack])["Parameters"][inner_name]
    outer = template()["Parameters"][outer_name]
    assert inner["Type"] == outer["Type"]
    assert outer.get("MinValue", float("-inf")) >= inner.get("MinValue", float("-inf"))
    assert outer.get("MaxValue", float("inf")) <= inner.get("MaxValue", float("inf"))
    assert outer.get("MaxLength", 0) <= inner.get("MaxLength", float("inf"))
    if "AllowedValues" in inner:
        assert set(outer["AllowedValues"]) <= set(inner["AllowedValues"])
    if "AllowedPattern" in inner:
        assert outer["AllowedPattern"] == inner["AllowedPattern"]


BASE_PATHS = [
    *(f"/a{character}b" for character in string.printable),
    *("", "/", "//", "/a/", "//a", "a", "/a/b", "/a/b.c/d", "/é", "/a/é"),
    *("/.", "/..", "/...", "/.a", "/a..", "/a/..", "/../a", "/a/./b"),
]


@pytest.mark.parametrize("path", BASE_PATHS)
def test_a_base_path_is_what_the_function_and_api_gateway_take(path: str) -> None:
    """Its mappings have fewer characters than a path of a URL:
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-mappings.html"""
    try:
        Settings.from_environment({"MODEL_URI": "/m", "BASE_PATH": path})
        is_setting = True
    except SettingsError:
        is_setting = False
    is_mapping = re.fullmatch(r"[A-Za-z0-9$\-_.+!*'()/]*", path) is not None
    allowed = re.fullmatch(template()["Parameters"]["BasePath"]["AllowedPattern"], path)
    assert (allowed is not None) == (is_setting and is_mapping)


def test_decisions_expire_only_after_their_transition() -> None:
    """S3 requires that an object expires after its storage class changed."""
    days = template()["Parameters"]["DecisionRetentionDays"]["MinValue"]
    stack = resolved(transformed("infra/data.yaml"), DecisionRetentionDays=str(days))
    rules = stack["Resources"]["DecisionsBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (moves,) = (rule for rule in rules if "Transitions" in rule)
    assert int(moves["ExpirationInDays"]) > moves["Transitions"][0]["TransitionInDays"]


def _stacks(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Json]]:
    """Each template of a stack of that name, with the parameters that the outermost one passes."""
    monkeypatch.setitem(PSEUDO, "AWS::StackName", name)
    parameters = {n: v for n, v in EVERY_OPTION.items() if n in template()["Parameters"]}
    stacks = {"template.yaml": resolved(transformed(**parameters), **parameters)}
    for stack, path in NESTED.items():
        properties = stacks["template.yaml"]["Resources"][stack]["Properties"]
        stacks[path] = resolved(transformed(path), **properties["Parameters"])
    return stacks


def test_every_name_fits_with_the_longest_stack_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with the limits in AWS's own schemas."""
    too_long = [
        (path, logical_id, name, value)
        for path, stack in _stacks(LONGEST_NAME, monkeypatch).items()
        for logical_id, resource in stack["Resources"].items()
        for name, value in resource.get("Properties", {}).items()
        if isinstance(value, str) and len(value) > _longest(resource["Type"], name)
    ]
    assert too_long == []


def test_the_longest_name_is_the_longest_that_the_nested_stacks_accept() -> None:
    for path in (NESTED["Data"], NESTED["Delivery"]):
        pattern = template(path)["Parameters"]["Name"]["AllowedPattern"]
        assert re.fullmatch(pattern, LONGEST_NAME)
        assert not re.fullmatch(pattern, LONGEST_NAME + "x")
        assert re.fullmatch(
            template(path)["Parameters"]["Id"]["AllowedPattern"],
            ID,
        )


def _longest(kind: str, name: str) -> float:
    limits = {  # missing in the schemas: limits of Lambda's API, Firehose's and others
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
    monkeypatch.setitem(EVERY_OPTION, "LogKeyArn", key)
    groups = {
        logical_id: resource["Properties"].get("KmsKeyId")
        for stack in _stacks("feedrank-dev", monkeypatch).values()
        for logical_id, resource in stack["Resources"].items()
        if resource["Type"] == "AWS::Logs::LogGroup"
    }
    assert groups == dict.fromkeys(["FunctionLogs", "AccessLogs", "DeliveryLog", "CanaryLogs"], key)


def test_a_line_of_the_access_log_is_always_json() -> None:
    """API Gateway inserts values unescaped, so a message could break the JSON; these are codes,
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
    assert (
        named["function_status"] == "$context.integration.status"
    )  # the status that our code returned
