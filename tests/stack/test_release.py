"""Every change takes effect, and a deploy without changes does nothing.

A version is published if SAM gives it another logical id, or if one of its create-only properties
changes. Both are computed here, by SAM's own transform and from AWS's own schema of the resource,
as included in cfn-lint.
"""

import copy
import itertools
import tomllib
from functools import cache
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from stack.transform import PROJECT, packaged, resolved, template, transformed

DIGEST = "ab" * 32
ON_S3 = f"s3://bundles/feedrank/feed_ranker/sha256-{DIGEST}/"
NEWER = f"s3://bundles/feedrank/feed_ranker/sha256-{'cd' * 32}/"
# Further values for every parameter that doesn't list its allowed values.
MORE_VALUES = {
    "ModelUri": [ON_S3, ON_S3.removesuffix("/"), NEWER, ON_S3.replace("//bundles", "//others")],
    "ModelDigest": [DIGEST, "cd" * 32],
    "BundleKeyArn": ["arn:aws:kms:eu-west-1:123456789012:key/1"],
    "BundleAdminRoleArn": ["arn:aws:iam::123456789012:role/bundle-admin"],
    "BundleLockDays": ["30"],
    "MemorySize": ["3538", "512"],
    "EphemeralStorage": ["1024", "10240"],
    "ReservedConcurrency": ["50", "100"],
    "RequestTimeoutMs": ["1500", "300"],
    "MaxItems": ["500", "1000"],
    "ProvisionedMin": ["2"],
    "ProvisionedMax": ["20"],
    "BusyMin": ["6"],
    "BusyFrom": ["cron(0 7 ? * MON-FRI *)"],
    "BusyUntil": ["cron(0 20 ? * MON-FRI *)"],
    "JwtIssuer": ["https://issuer.example.com/"],
    "JwtAudience": ["feed"],
    "CorsOrigins": ["https://www.example.com"],
    "ThrottleRate": ["1000"],
    "ThrottleBurst": ["500"],
    "DomainName": ["api.example.com"],
    "CertificateArn": ["arn:aws:acm:eu-west-1:123456789012:certificate/1"],
    "HostedZoneId": ["Z1"],
    "BasePath": ["/v1", "/v2"],
    "DecisionRetentionDays": ["90"],
    "SnapshotAgeDays": ["7"],
    "FeatureAgeMinutes": ["15"],
    "FeaturesTable": ["rows", "others"],
    "LogKeyArn": ["arn:aws:kms:eu-west-1:123456789012:key/1"],
    "AlarmTopicArn": ["arn:aws:sns:eu-west-1:123456789012:alarms"],
    "AlarmEmail": ["on-call@example.com"],
}
# Properties of the function, not of a version: a change needs no new version.
UNVERSIONED = {"ReservedConcurrentExecutions", "Tags"}


PARAMETERS = template()["Parameters"]


def _values(name: str) -> list[str]:
    """All allowed values, or the default and some more."""
    listed = [str(value) for value in PARAMETERS[name].get("AllowedValues", ())]
    return listed or [str(PARAMETERS[name]["Default"]), *MORE_VALUES[name]]


def _prod() -> dict[str, str]:
    config = tomllib.loads((PROJECT / "samconfig.toml").read_text())
    overrides = config["prod"]["deploy"]["parameters"]["parameter_overrides"]
    return dict(each.split("=", 1) for each in overrides)


BASES = {
    "layer": {},
    "s3": {"ModelUri": NEWER, "LiveFeatures": "users"},
    "prod": {**_prod(), "ModelUri": ON_S3},
}


def _deployed(source: Any = "template.yaml", **parameters: str) -> dict[str, Any]:
    resources: dict[str, Any] = resolved(transformed(source, **parameters), **parameters)
    return resources["Resources"]


@cache
def _from(base: str, **parameters: str) -> dict[str, Any]:
    return _deployed(**{**BASES[base], **parameters})


def _version(resources: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The published version: its logical id and its properties."""
    ((name, version),) = (
        each for each in resources.items() if each[1]["Type"] == "AWS::Lambda::Version"
    )
    assert resources["FunctionAliaslive"]["Properties"]["FunctionVersion"] == f"${{{name}.Version}}"
    return name, version["Properties"]


def _configuration(resources: dict[str, Any]) -> dict[str, Any]:
    properties = resources["Function"]["Properties"]
    return {name: value for name, value in properties.items() if name not in UNVERSIONED}


def test_a_deploy_without_changes_publishes_nothing() -> None:
    assert _version(_deployed()) == _version(_deployed())


@pytest.mark.parametrize("resource", ["Function", "RuntimeLayer", "ModelLayer"])
def test_new_code_and_each_new_layer_publish_a_version(resource: str) -> None:
    source = packaged(template())
    newer = copy.deepcopy(source)
    key = "CodeUri" if resource == "Function" else "ContentUri"
    newer["Resources"][resource]["Properties"][key] = "s3://artifacts/other"
    assert _version(_deployed(source))[0] != _version(_deployed(newer))[0]


def test_a_changed_property_of_the_function_publishes_a_version() -> None:
    newer = template()
    newer["Resources"]["Function"]["Properties"]["Environment"]["Variables"]["MAX_BODY_BYTES"] = "1"
    assert _version(_deployed())[0] != _version(_deployed(newer))[0]


def test_every_parameter_has_values_to_try() -> None:
    assert {n for n, p in PARAMETERS.items() if "AllowedValues" not in p} == set(MORE_VALUES)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
@pytest.mark.parametrize("base", BASES)
def test_a_version_is_published_exactly_when_the_functions_configuration_changes(
    name: str, base: str
) -> None:
    """From each value of a parameter to every other. Lambda rejects a version without changes; a
    change without a version is worse."""
    deployed = [(value, _from(base, **{name: value})) for value in _values(name)]
    assert len(deployed) > 1
    for (before, old), (after, new) in itertools.permutations(deployed, 2):
        published = _version(old) != _version(new)
        changed = _configuration(old) != _configuration(new)
        assert published == changed, f"{name}: {before} -> {after}"


def test_these_parameters_publish_a_version() -> None:
    """So that a change of this set is noticed."""
    publish = {
        name
        for name in PARAMETERS
        if len({str(_version(_from("layer", **{name: value}))) for value in _values(name)}) > 1
    }
    assert publish == {
        "Architecture",
        "Auth",
        "BasePath",
        "ContextCheck",
        "DecisionDelivery",
        "EphemeralStorage",
        "LiveFeatures",
        "LogLevel",
        "MaxItems",
        "MemorySize",
        "ModelDigest",
        "ModelFallback",
        "ModelUri",
        "RecordIds",
        "RecordOutputs",
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
    """Within 256 characters, for the longest allowed values."""
    uri = f"/m/sha256-{DIGEST}/"
    longest = {
        "ModelUri": "s3://".ljust(PARAMETERS["ModelUri"]["MaxLength"] - len(uri), "b") + uri,
        "ModelFallback": "layer",
        "Architecture": "arm64",
        "MemorySize": str(PARAMETERS["MemorySize"]["MaxValue"]),
        "EphemeralStorage": str(PARAMETERS["EphemeralStorage"]["MaxValue"]),
        "RequestTimeoutMs": str(PARAMETERS["RequestTimeoutMs"]["MaxValue"]),
        "MaxItems": str(PARAMETERS["MaxItems"]["MaxValue"]),
        "Auth": "none",
        "LogLevel": max(PARAMETERS["LogLevel"]["AllowedValues"], key=len),
        "Tracing": "on",
        "WarmStart": "snapstart",
        "DecisionDelivery": "direct",
        "RecordIds": "hashed",
        "ContextCheck": "warn",
        "RecordOutputs": "always",
        "LiveFeatures": "all",
        "BasePath": "/".ljust(PARAMETERS["BasePath"]["MaxLength"], "x"),
    }
    _, version = _version(_deployed(**longest))
    assert 240 < len(version["Description"]) <= 256


def test_the_longest_description_with_a_table_fits() -> None:
    room = PARAMETERS["ModelUri"]["MaxLength"] - 64
    uri = f"/m/sha256-{DIGEST}/"
    longest = {
        "ModelUri": "s3://".ljust(room - len(uri), "b") + uri,
        "LiveFeatures": "all",
        "FeaturesTable": 64 * "t",
    }
    without = {"ModelUri": "s3://".ljust(room + 64 - len(uri), "b") + uri, "LiveFeatures": "all"}
    lengths = [len(_version(_deployed(**each))[1]["Description"]) for each in (longest, without)]
    assert lengths[0] == lengths[1]


def test_a_model_with_a_long_name_fits() -> None:
    """A bucket name that CloudFormation generates has 63 characters at most."""
    uri = f"s3://{'b' * 63}/bundles/{'n' * 64}/sha256-{DIGEST}/"
    assert len(uri) <= PARAMETERS["ModelUri"]["MaxLength"]


def test_earlier_versions_are_retained_for_a_roll_back() -> None:
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
def test_traffic_shifts_as_the_environment_requires_and_alarms_roll_back(
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


def test_the_canary_calls_the_version_that_is_about_to_get_traffic() -> None:
    resources = _deployed(ModelUri=ON_S3)
    name, _ = _version(resources)
    passed = resources["Delivery"]["Properties"]["Parameters"]
    assert (passed["VersionArn"], passed["VersionNumber"]) == (
        f"${{{name}}}",
        f"${{{name}.Version}}",
    )
    assert passed["DeploymentApplication"] == "${ServerlessDeploymentApplication}"
    group = resources["FunctionDeploymentGroup"]["Properties"]
    assert group["ApplicationName"] == passed["DeploymentApplication"]
    delivery = resolved(transformed("infra/delivery.yaml"), **{k: passed[k] for k in passed})
    variables = delivery["Resources"]["Canary"]["Properties"]["Environment"]["Variables"]
    assert variables == {
        "VERSION_ARN": f"${{{name}}}",
        "MODEL_URI": ON_S3,
        "BASE_PATH": "",
        "ID_TYPE": "number",
        "LIVE_FEATURES": "none",
    }


def test_an_earlier_version_can_still_read_its_bundle() -> None:
    """It starts new environments while traffic shifts and after a roll-back."""
    statements = _deployed(ModelUri=ON_S3)["FunctionRole"]["Properties"]["Policies"][0][
        "PolicyDocument"
    ]["Statement"]
    (read,) = (statement for statement in statements if statement["Sid"] == "ReadBundles")
    assert read["Resource"] == [
        "${Data.Outputs.BundleBucketArn}/bundles/*",
        "arn:aws:s3:::bundles/feedrank/feed_ranker/sha256-*",
    ]
