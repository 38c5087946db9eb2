"""A change takes effect, and no change changes nothing.

A version is published when SAM gives it another logical id, or when a property of it changes that
CloudFormation can only replace. Both are computed here, by SAM's own transform and by AWS's own
schema of the resource, as cfn-lint brings it.
"""

import copy
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from stack.transform import packaged, resolved, template, transformed

DIGEST = "ab" * 32
ON_S3 = f"s3://bundles/feedrank/feed_ranker/sha256-{DIGEST}/"
NEWER = f"s3://bundles/feedrank/feed_ranker/sha256-{'cd' * 32}/"
# Another value than the default, for every parameter; where one of two is meant, the longest.
OTHER_VALUES = {
    "Environment": "prod",
    "ModelUri": ON_S3,
    "ModelDigest": DIGEST,
    "ModelFallback": "layer",
    "BundleKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "Architecture": "arm64",
    "MemorySize": "3538",
    "ReservedConcurrency": "50",
    "RequestTimeoutMs": "1500",
    "LogLevel": "WARNING",
    "Tracing": "on",
    "WarmStart": "snapstart",
    "ProvisionedMin": "2",
    "ProvisionedMax": "20",
    "BusyMin": "6",
    "BusyFrom": "cron(0 7 ? * MON-FRI *)",
    "BusyUntil": "cron(0 20 ? * MON-FRI *)",
    "Auth": "none",
    "JwtIssuer": "https://issuer.example.com/",
    "JwtAudience": "feed",
    "CorsOrigins": "https://www.example.com",
    "ThrottleRate": "1000",
    "ThrottleBurst": "500",
    "DomainName": "api.example.com",
    "CertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
    "HostedZoneId": "Z1",
    "BasePath": "/v1",
    "DecisionDelivery": "direct",
    "DecisionRetentionDays": "90",
    "LogRetentionDays": "7",
    "LogKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
    "AlarmEmail": "on-call@example.com",
}
# What Lambda keeps for the function and not for a version: a change of it needs no new one.
UNVERSIONED = {"ReservedConcurrentExecutions", "Tags"}


def _deployed(source: Any = "template.yaml", **parameters: str) -> dict[str, Any]:
    resources: dict[str, Any] = resolved(transformed(source, **parameters), **parameters)
    return resources["Resources"]


def _version(resources: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a release publishes: the version's logical id, and its properties."""
    ((name, version),) = (
        each for each in resources.items() if each[1]["Type"] == "AWS::Lambda::Version"
    )
    assert resources["FunctionAliaslive"]["Properties"]["FunctionVersion"] == f"${{{name}.Version}}"
    return name, version["Properties"]


def _configuration(resources: dict[str, Any]) -> dict[str, Any]:
    properties = resources["Function"]["Properties"]
    return {name: value for name, value in properties.items() if name not in UNVERSIONED}


def test_no_change_publishes_nothing() -> None:
    assert _version(_deployed()) == _version(_deployed())


@pytest.mark.parametrize("resource", ["Function", "RuntimeLayer", "ModelLayer"])
def test_new_code_and_each_new_layer_publish(resource: str) -> None:
    source = packaged(template())
    newer = copy.deepcopy(source)
    key = "CodeUri" if resource == "Function" else "ContentUri"
    newer["Resources"][resource]["Properties"][key] = "s3://artifacts/other"
    assert _version(_deployed(source))[0] != _version(_deployed(newer))[0]


def test_a_changed_line_of_the_function_publishes() -> None:
    newer = template()
    newer["Resources"]["Function"]["Properties"]["Environment"]["Variables"]["MAX_BODY_BYTES"] = "1"
    assert _version(_deployed())[0] != _version(_deployed(newer))[0]


def test_every_parameter_is_tried() -> None:
    assert set(OTHER_VALUES) == set(template()["Parameters"])


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
@pytest.mark.parametrize("base", ["layer", "s3"])
def test_a_parameters_value_publishes_where_the_function_depends_on_it_and_nowhere_else(
    name: str, base: str
) -> None:
    """Publishing where nothing changed is an error to Lambda; not publishing is worse."""
    before = {"ModelUri": NEWER} if base == "s3" else {}
    after = before | {name: OTHER_VALUES[name]}
    old, new = _deployed(**before), _deployed(**after)
    published = _version(old) != _version(new)
    assert published == (_configuration(old) != _configuration(new))


def test_which_parameters_those_are() -> None:
    """So that one which stops to matter, or starts to, is seen."""
    old = _deployed()
    publish = {
        name
        for name, value in OTHER_VALUES.items()
        if _version(old) != _version(_deployed(**{name: value}))
    }
    assert publish == {
        "Architecture",
        "BasePath",
        "DecisionDelivery",
        "LogLevel",
        "MemorySize",
        "ModelDigest",
        "ModelFallback",
        "ModelUri",
        "RequestTimeoutMs",
        "Tracing",
        "WarmStart",
    }


def test_cloudformation_replaces_a_version_whose_description_changes() -> None:
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", "AWS::Lambda::Version").schema
    assert {"/properties/Description", "/properties/FunctionName"} <= {
        *schema["createOnlyProperties"]
    }


def test_the_longest_description_fits() -> None:
    """256 characters."""
    parameters = template()["Parameters"]
    longest = {
        name: max(parameter["AllowedValues"], key=len)
        for name, parameter in parameters.items()
        if isinstance(parameter.get("AllowedValues", [None])[0], str)
    }
    longest |= {
        "ModelUri": "s3://".ljust(parameters["ModelUri"]["MaxLength"], "x"),
        "BasePath": "/".ljust(parameters["BasePath"]["MaxLength"], "x"),
        "MemorySize": str(parameters["MemorySize"]["MaxValue"]),
        "RequestTimeoutMs": str(parameters["RequestTimeoutMs"]["MaxValue"]),
    }
    del longest["Environment"]
    source = transformed()
    source["Resources"]["Function"]["Properties"]["Environment"] = {}
    source["Resources"]["FunctionRole"]["Properties"] = {}
    _, version = _version(resolved(source, **longest)["Resources"])
    assert 200 < len(version["Description"]) <= 256


def test_earlier_versions_stay_for_a_roll_back() -> None:
    name, _ = _version(_deployed())
    version = transformed()["Resources"][name]
    assert (version["DeletionPolicy"], version["UpdateReplacePolicy"]) == ("Retain", "Retain")


@pytest.mark.parametrize(
    ("environment", "traffic"),
    [
        ("dev", "CodeDeployDefault.LambdaAllAtOnce"),
        ("staging", "CodeDeployDefault.LambdaCanary10Percent5Minutes"),
        ("prod", "CodeDeployDefault.LambdaCanary10Percent5Minutes"),
    ],
)
def test_traffic_shifts_as_the_environment_wants_and_alarms_roll_back(
    environment: str, traffic: str
) -> None:
    resources = _deployed(Environment=environment)
    group = resources["FunctionDeploymentGroup"]["Properties"]
    assert group["DeploymentConfigName"] == traffic
    assert group["AutoRollbackConfiguration"]["Enabled"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    delivery = transformed("infra/delivery.yaml")
    watched = [alarm["Name"] for alarm in group["AlarmConfiguration"]["Alarms"]]
    alarms = [n for n, r in delivery["Resources"].items() if r["Type"] == "AWS::CloudWatch::Alarm"]
    assert sorted(watched) == sorted(f"${{Delivery.Outputs.{alarm}}}" for alarm in alarms)
    policy = resources["FunctionAliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert policy["BeforeAllowTrafficHook"] == "${Delivery.Outputs.CanaryName}"


def test_the_canary_asks_the_version_that_is_about_to_get_traffic() -> None:
    resources = _deployed(ModelUri=ON_S3)
    name, _ = _version(resources)
    passed = resources["Delivery"]["Properties"]["Parameters"]
    assert (passed["VersionArn"], passed["VersionNumber"]) == (
        f"${{{name}}}",
        f"${{{name}.Version}}",
    )
    delivery = resolved(transformed("infra/delivery.yaml"), **{k: passed[k] for k in passed})
    variables = delivery["Resources"]["Canary"]["Properties"]["Environment"]["Variables"]
    assert variables == {"VERSION_ARN": f"${{{name}}}", "MODEL_URI": ON_S3, "BASE_PATH": ""}


def test_an_earlier_version_may_still_read_its_bundle() -> None:
    """It starts new environments while traffic shifts, and after a roll-back."""
    statements = _deployed(ModelUri=ON_S3)["FunctionRole"]["Properties"]["Policies"][0][
        "PolicyDocument"
    ]["Statement"]
    (read,) = (statement for statement in statements if statement["Sid"] == "ReadBundles")
    assert read["Resource"] == [
        "${Data.Outputs.BundleBucketArn}/bundles/*",
        "arn:aws:s3:::bundles/feedrank/feed_ranker/sha256-*",
    ]
