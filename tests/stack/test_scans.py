"""The scanners report nothing that isn't waived, and report each of these mistakes.

Templates are scanned after the SAM transform, since Guard's rules skip untransformed resources.
"""

import copy
import tomllib
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stack import checks
from stack.checks import Finding
from stack.transform import resolved, transformed

TEMPLATES = {
    "template": "template.yaml",
    "data": "infra/data.yaml",
    "observability": "infra/observability.yaml",
    "delivery": "infra/delivery.yaml",
    "ecs": "infra/images/ecs.yaml",
    "sagemaker": "infra/images/sagemaker.yaml",
    "gpu": "infra/images/gpu.yaml",
    "release-role": "infra/pipeline/role.yaml",
    "deploy-role": "infra/pipeline/deploy-role.yaml",
    "webhook": "infra/pipeline/webhook.yaml",
    "streaming": "infra/streaming/template.yaml",
}
ON_S3 = {"ModelUri": f"s3://bundles/feedrank/feed_ranker/sha256-{'ab' * 32}/"}
OF_AN_IMAGE = {**ON_S3, "ImageDigest": f"sha256:{'cd' * 32}"}
# Sets of parameters that together create every resource, so that each is scanned.
DEPLOYMENTS: dict[str, list[dict[str, str]]] = {
    "template": [
        {},
        {"Environment": "prod", "WarmStart": "provisioned", **ON_S3},
        {"WarmStart": "snapstart", "DecisionDelivery": "direct", "Tracing": "on"},
        {"RecordIds": "hashed", "LiveFeatures": "users"},
        {"LogLevel": "WARNING"},
        {"LogLevel": "ERROR"},
        {
            "Auth": "jwt",
            "JwtIssuer": "https://issuer.example.com/",
            "JwtAudience": "feed",
            "DomainName": "api.example.com",
            "CertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
            "HostedZoneId": "Z1",
            "LogKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "BundleKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/2",
        },
    ],
    "data": [{}, {"DecisionDelivery": "direct", "RecordIds": "hashed", "LiveFeatures": "all"}],
    "observability": [
        {},
        {"AlarmEmail": "on-call@example.com", "WarmStart": "provisioned", "SnapshotAgeDays": "7"},
        {"DecisionDelivery": "direct", "LiveFeatures": "all", "FeatureAgeMinutes": "15"},
    ],
    "delivery": [{}, ON_S3],
    "ecs": [
        OF_AN_IMAGE,
        {
            **OF_AN_IMAGE,
            "ScraperSecurityGroupId": "sg-0123456789abcdef0",
            "RecordIdKeySecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:k-AbCdEf",
            "AccessLogsBucket": "access-logs",
            "FeaturesTable": "features",
            "LogKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "BundleKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/2",
        },
    ],
    "sagemaker": [
        OF_AN_IMAGE,
        {
            **OF_AN_IMAGE,
            "InferenceAmi": "al2023-ami-sagemaker-inference-gpu-4-1",
            "VolumeKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/3",
            "BundleKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/2",
        },
    ],
    "gpu": [
        OF_AN_IMAGE,
        {**OF_AN_IMAGE, "BundleKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/2"},
    ],
    "release-role": [{}],
    "deploy-role": [{}, {"HostedZoneId": "Z1"}],
    "webhook": [
        {},
        {
            "TrackingTokenArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:t-AbCdEf",
            "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
        },
    ],
    "streaming": [
        {**ON_S3, "FeaturesTable": "features"},
        {
            **ON_S3,
            "FeaturesTable": "features",
            "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
            "LogKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
            "BundleKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/2",
        },
    ],
}
WAIVERS = tomllib.loads((Path(__file__).parent / "waivers.toml").read_text())["waiver"]
WAIVED = {Finding(w["check"], resource) for w in WAIVERS for resource in w["resources"]}

Template = dict[str, Any]


@pytest.fixture(scope="session")
def after_sam() -> Mapping[str, Template]:
    return {name: transformed(path) for name, path in TEMPLATES.items()}


@pytest.fixture(scope="session")
def linted(after_sam: Mapping[str, Template]) -> Mapping[str, set[Finding]]:
    return {name: checks.of_cfnlint(template) for name, template in after_sam.items()}


@pytest.fixture(scope="session")
def checkov(
    after_sam: Mapping[str, Template], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, set[Finding]]:
    """One process for the templates and for the mistakes that it must report: with conditions
    decided, because it counts `!If [c, x, NoValue]` as set, and undecided, because only there it
    sees references."""
    if not checks.CHECKOV.exists():
        pytest.skip("checkov has an environment of its own: make .venv-scan/.ready")
    scanned: dict[str, Template] = dict(after_sam)
    for name, deployments in DEPLOYMENTS.items():
        for number, parameters in enumerate(deployments):
            scanned[f"{name}--{number}"] = _decided(after_sam[name], parameters)
    for number, mistake in enumerate(FOR_CHECKOV):
        changed = _with(after_sam[mistake.template], mistake.make)
        scanned[f"mistake-{number}"] = changed
        scanned[f"mistake-{number}--decided"] = _decided(changed, {})
    findings: dict[str, set[Finding]] = defaultdict(set)
    for name, reported in checks.of_checkov(scanned, tmp_path_factory.mktemp("checkov")).items():
        findings[name.partition("--")[0]] |= reported
    return findings


def _decided(after_sam: Template, parameters: dict[str, str]) -> Template:
    return resolved(after_sam, **parameters)


def _reported_by_rules(name: str, after_sam: Template) -> set[Finding]:
    """By Guard and by our own checks, over all deployments."""
    findings: set[Finding] = set()
    for parameters in DEPLOYMENTS[name]:
        decided = _decided(after_sam, parameters)
        findings |= checks.of_guard(decided) | checks.of_ours(decided)
    return findings


# ---- No finding without a waiver -----------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_guard_and_our_own_checks_report_nothing(
    name: str, after_sam: Mapping[str, Template]
) -> None:
    assert _reported_by_rules(name, after_sam[name]) - WAIVED == set()


@pytest.mark.parametrize("name", TEMPLATES)
def test_cfnlint_reports_nothing(name: str, linted: Mapping[str, set[Finding]]) -> None:
    assert linted[name] - WAIVED == set()


@pytest.mark.parametrize("name", TEMPLATES)
def test_checkov_reports_nothing(name: str, checkov: Mapping[str, set[Finding]]) -> None:
    assert checkov[name] - WAIVED == set()


def test_a_waiver_is_needed_and_has_a_reason(
    after_sam: Mapping[str, Template],
    linted: Mapping[str, set[Finding]],
    checkov: Mapping[str, set[Finding]],
) -> None:
    findings: set[Finding] = set()
    for name, template in after_sam.items():
        findings |= _reported_by_rules(name, template) | linted[name] | checkov[name]
    assert WAIVED - findings == set()
    assert all(len(waiver["reason"]) > 40 for waiver in WAIVERS)


def test_every_resource_is_created_by_one_of_the_deployments(
    after_sam: Mapping[str, Template],
) -> None:
    for name, template in after_sam.items():
        created = set().union(
            *(_decided(template, parameters)["Resources"] for parameters in DEPLOYMENTS[name])
        )
        assert set(template["Resources"]) - created == set()


# ---- Mistakes, each made in a template and reported ----------------------------------------------


class Mistake:
    """`make` changes a copy of the resources; `finding` must then be reported."""

    def __init__(
        self, what: str, template: str, check: str, resource: str, make: Callable[[Template], None]
    ) -> None:
        self.what = what
        self.template = template
        self.finding = Finding(check, resource)
        self.make = make


def _with(template: Template, make: Callable[[Template], None]) -> Template:
    changed = copy.deepcopy(template)
    make(changed["Resources"])
    return changed


def _set(resource: str, path: str, value: object) -> Callable[[Template], None]:
    """`path` within the properties, dotted; a number is an index of a list."""

    def make(resources: Template) -> None:
        *parents, last = path.split(".")
        _node(resources[resource]["Properties"], parents)[last] = value

    return make


def _drop(resource: str, *paths: str) -> Callable[[Template], None]:
    def make(resources: Template) -> None:
        for path in paths:
            *parents, last = path.split(".")
            del _node(resources[resource]["Properties"], parents)[last]

    return make


def _node(node: Any, path: list[str]) -> Any:
    for part in path:
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


def _without(resource: str) -> Callable[[Template], None]:
    def make(resources: Template) -> None:
        del resources[resource]

    return make


def _attribute(resource: str, name: str, value: str) -> Callable[[Template], None]:
    def make(resources: Template) -> None:
        resources[resource][name] = value

    return make


STATEMENT = "Policies.0.PolicyDocument.Statement.0"
TRUST = "AssumeRolePolicyDocument.Statement.0"
S3_OF_LOGS_STREAM = "ExtendedS3DestinationConfiguration"
FOR_RULES = [
    Mistake(
        "a public bucket",
        "data",
        "bucket_is_private",
        "BundleBucket",
        _set("BundleBucket", "PublicAccessBlockConfiguration.BlockPublicPolicy", value=False),
    ),
    Mistake(
        "a bucket readable by an ACL",
        "data",
        "bucket_is_private",
        "DecisionsBucket",
        _set("DecisionsBucket", "AccessControl", "PublicRead"),
    ),
    Mistake(
        "a bucket without encryption",
        "data",
        "bucket_is_encrypted",
        "DecisionsBucket",
        _drop("DecisionsBucket", "BucketEncryption"),
    ),
    Mistake(
        "a bundle bucket without versioning",
        "data",
        "bucket_is_versioned",
        "BundleBucket",
        _set("BundleBucket", "VersioningConfiguration.Status", "Suspended"),
    ),
    Mistake(
        "records without an expiry",
        "data",
        "bucket_expires_objects",
        "DecisionsBucket",
        _drop("DecisionsBucket", "LifecycleConfiguration"),
    ),
    Mistake(
        "a bucket that is deleted with its stack",
        "data",
        "bucket_is_retained",
        "DecisionsBucket",
        _attribute("DecisionsBucket", "DeletionPolicy", "Delete"),
    ),
    Mistake(
        "a bucket that accepts plain HTTP",
        "data",
        "a_bucket_accepts_tls_only",
        "BundleBucket",
        _without("BundleBucketPolicy"),
    ),
    Mistake(
        "a TLS policy that omits the objects",
        "data",
        "a_bucket_accepts_tls_only",
        "DecisionsBucket",
        _set(
            "DecisionsBucketPolicy",
            "PolicyDocument.Statement.0.Resource",
            {"Fn::GetAtt": ["DecisionsBucket", "Arn"]},
        ),
    ),
    Mistake(
        "an unencrypted stream",
        "data",
        "stream_is_encrypted",
        "LogsStream",
        _drop("LogsStream", "DeliveryStreamEncryptionConfigurationInput"),
    ),
    Mistake(
        "a stream without an error prefix",
        "data",
        "stream_delivers_as_agreed",
        "LogsStream",
        _drop("LogsStream", f"{S3_OF_LOGS_STREAM}.ErrorOutputPrefix"),
    ),
    Mistake(
        "a buffer too small for partitions",
        "data",
        "stream_delivers_as_agreed",
        "DirectStream",
        _set("DirectStream", f"{S3_OF_LOGS_STREAM}.BufferingHints.SizeInMBs", 5),
    ),
    Mistake(
        "a subscribed stream that doesn't unwrap envelopes",
        "data",
        "a_subscribed_stream_unwraps",
        "LogsStream",
        _set(
            "LogsStream", f"{S3_OF_LOGS_STREAM}.ProcessingConfiguration.Processors.0.Type", "Lambda"
        ),
    ),
    Mistake(
        "a log without retention",
        "data",
        "log_group_has_retention",
        "DeliveryLog",
        _drop("DeliveryLog", "RetentionInDays"),
    ),
    Mistake(
        "the function's log without retention",
        "template",
        "log_group_has_retention",
        "FunctionLogs",
        _drop("FunctionLogs", "RetentionInDays"),
    ),
    Mistake(
        "queries without a budget",
        "data",
        "queries_are_bounded_and_encrypted",
        "WorkGroup",
        _drop("WorkGroup", "WorkGroupConfiguration.BytesScannedCutoffPerQuery"),
    ),
    Mistake(
        "a role that may do anything with S3",
        "data",
        "no_policy_allows_every_action",
        "DeliveryRole",
        _set("DeliveryRole", f"{STATEMENT}.Action", "s3:*"),
    ),
    Mistake(
        "a role that may write to any bucket",
        "data",
        "no_policy_allows_every_resource",
        "DeliveryRole",
        _set("DeliveryRole", f"{STATEMENT}.Resource", "*"),
    ),
    Mistake(
        "a role that anybody may assume",
        "data",
        "only_named_principals_are_trusted",
        "DeliveryRole",
        _set("DeliveryRole", f"{TRUST}.Principal", {"AWS": "*"}),
    ),
    Mistake(
        "a role for Firehose of any account",
        "data",
        "a_service_acts_for_this_account_only",
        "DeliveryRole",
        _drop("DeliveryRole", f"{TRUST}.Condition"),
    ),
    Mistake(
        "a topic that anybody may publish to",
        "observability",
        "only_named_principals_are_trusted",
        "AlarmTopicPolicy",
        _set("AlarmTopicPolicy", "PolicyDocument.Statement.0.Principal", "*"),
    ),
    Mistake(
        "an alarm without a description",
        "observability",
        "alarm_is_described",
        "ThrottlesAlarm",
        _drop("ThrottlesAlarm", "AlarmDescription"),
    ),
    Mistake(
        "an open route",
        "template",
        "a_route_requires_auth",
        "PredictRoute",
        _set("PredictRoute", "AuthorizationType", "NONE"),
    ),
    Mistake(
        "a route without authorization type",
        "template",
        "a_route_requires_auth",
        "ModelRoute",
        _drop("ModelRoute", "AuthorizationType"),
    ),
    Mistake(
        "an integration that bypasses the alias",
        "template",
        "callers_reach_the_alias",
        "Integration",
        _set("Integration", "IntegrationUri", {"Fn::GetAtt": ["Function", "Arn"]}),
    ),
    Mistake(
        "an invoke permission for APIs of any account",
        "template",
        "a_service_acts_for_this_account_only",
        "InvokePermission",
        _drop("InvokePermission", "SourceArn", "SourceAccount"),
    ),
    Mistake(
        "an API without access logs",
        "template",
        "api_is_logged_and_throttled",
        "Stage",
        _drop("Stage", "AccessLogSettings"),
    ),
    Mistake(
        "an API without throttling",
        "template",
        "api_is_logged_and_throttled",
        "Stage",
        _drop("Stage", "DefaultRouteSettings.ThrottlingRateLimit"),
    ),
    Mistake(
        "a log level that drops decision records",
        "template",
        "no_log_level_drops_decision_records",
        "Function",
        _set("Function", "LoggingConfig.ApplicationLogLevel", "WARN"),
    ),
    Mistake(
        "a password in the environment",
        "template",
        "no_secret_is_in_the_environment",
        "Function",
        _set("Function", "Environment.Variables.DB_PASSWORD", "hunter2"),
    ),
    Mistake(
        "the key of hashed ids in the environment",
        "template",
        "no_secret_is_in_the_environment",
        "Function",
        _set("Function", "Environment.Variables.RECORD_ID_KEY", "0123456789abcdef" * 2),
    ),
    Mistake(
        "a release that no alarm rolls back",
        "template",
        "release_rolls_back",
        "FunctionDeploymentGroup",
        _set("FunctionDeploymentGroup", "AlarmConfiguration.Enabled", value=False),
    ),
    Mistake(
        "a canary that may invoke anything",
        "delivery",
        "no_policy_allows_every_resource",
        "CanaryRole",
        _set("CanaryRole", "Policies.0.PolicyDocument.Statement.1.Resource", "*"),
    ),
]
FOR_CFNLINT = [
    Mistake(
        "a property that doesn't exist",
        "data",
        "E3002",
        "BundleBucket",
        _set("BundleBucket", "VersionConfiguration", {"Status": "Enabled"}),
    ),
    Mistake(
        "a reference to nothing",
        "data",
        "E1020",
        "DecisionsFilter",
        _set("DecisionsFilter", "LogGroupName", {"Ref": "FunctionLogGroup"}),
    ),
    Mistake(
        "an alarm with a value that isn't allowed",
        "observability",
        "E3030",
        "ThrottlesAlarm",
        _set("ThrottlesAlarm", "TreatMissingData", "ignored"),
    ),
]
FOR_CHECKOV = [
    Mistake(
        "a KMS key only under an unmet condition",
        "template",
        "CKV_AWS_158",
        "MoreLogs",
        lambda resources: resources.update(MoreLogs=copy.deepcopy(resources["FunctionLogs"])),
    ),
    Mistake(
        "a key in the environment",
        "template",
        "CKV_AWS_45",
        "Function",
        _set("Function", "Environment.Variables.AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ),
    Mistake(
        "a bucket without a block on public policies",
        "data",
        "CKV_AWS_54",
        "BundleBucket",
        _set("BundleBucket", "PublicAccessBlockConfiguration.BlockPublicPolicy", value=False),
    ),
]


@pytest.mark.parametrize("mistake", FOR_RULES, ids=lambda mistake: mistake.what)
def test_rules_report_a_mistake(mistake: Mistake, after_sam: Mapping[str, Template]) -> None:
    changed = _with(after_sam[mistake.template], mistake.make)
    findings = _reported_by_rules(mistake.template, changed)
    assert mistake.finding in findings - WAIVED


@pytest.mark.parametrize("mistake", FOR_CFNLINT, ids=lambda mistake: mistake.what)
def test_cfnlint_reports_a_mistake(mistake: Mistake, after_sam: Mapping[str, Template]) -> None:
    changed = _with(after_sam[mistake.template], mistake.make)
    assert mistake.finding in checks.of_cfnlint(changed) - WAIVED


@pytest.mark.parametrize("number", range(len(FOR_CHECKOV)), ids=lambda n: FOR_CHECKOV[n].what)
def test_checkov_reports_a_mistake(number: int, checkov: Mapping[str, set[Finding]]) -> None:
    assert FOR_CHECKOV[number].finding in checkov[f"mistake-{number}"] - WAIVED
