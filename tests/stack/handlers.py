"""What CloudFormation calls to create, change and delete every resource of the stack: the actions
that it publishes for the resource's type, and the resources on which IAM evaluates them."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.iam import ACCOUNT, ID, REGION
from stack.test_scans import DEPLOYMENTS, TEMPLATES
from stack.transform import resolved, transformed

STACK = "feedrank-dev"
OF_THE_STACK = ("template", "data", "delivery", "observability")
ARTIFACTS = f"pipeline-{STACK}-{ACCOUNT}-{REGION}"
HANDLERS: dict[str, list[str]] = tomllib.loads(
    (Path(__file__).parent / "handlers.toml").read_text()
)
PASSED_TO = {  # the service that a resource of this type gives a role to
    "AWS::CodeDeploy::DeploymentGroup": "codedeploy.amazonaws.com",
    "AWS::KinesisFirehose::DeliveryStream": "firehose.amazonaws.com",
    "AWS::Lambda::Function": "lambda.amazonaws.com",
    "AWS::Logs::SubscriptionFilter": "logs.amazonaws.com",
}
# Actions for properties that no template here has, as `type action`.
NOT_NEEDED = {
    "a network, a file system, a table bucket, a data lake": (
        r".* (ec2|elasticfilesystem|s3files|s3tables|lakeformation):.*"
    ),
    "a key, whose own policy allows its use": r".* kms:.*",
    "what IAM doesn't know": (
        r".* (s3:REST\.PUT\.OBJECT|s3:getObject|S3:GetBucketWebsite|apigateway:\w*Resource)"
    ),
    "a role for a resource that has none": (
        r"AWS::(ApiGatewayV2|ApplicationAutoScaling|CloudFormation|S3)::\w+ iam:PassRole"
        r"|AWS::SNS::Topic iam:.*"
    ),
    "functions that are signed, recursive or on instances": (
        r".* lambda:(Put|Delete|Update)\w*(CodeSigning|Recursion|Scaling|RuntimeManagement)\w*"
        r"|.* lambda:(PassCapacityProvider|GetCodeSigningConfig)"
    ),
    "buckets that are websites, replicas, logs or metered": (
        r"AWS::S3::Bucket s3:((Put|Delete|Update|Create)Bucket(Abac|Acl|Analytics|Cors|CORS|"
        r"Encryption|Lifecycle|Logging|Metadata|Metrics|Notification|Replication|Website)\w*|"
        r"(Put|Delete)(Accelerate|Analytics|IntelligentTiering|Inventory|Metrics|Replication)"
        r"Configuration|PutObjectAcl|DeleteObject|PutObjectLockConfiguration|ListTagsForResource|"
        r"(Tag|Untag)Resource|GetBucketAbac|GetBucketMetadataTableConfiguration)"
    ),
    "a workgroup for Spark, or with results of its own": r"AWS::Athena::WorkGroup (s3|iam):.*",
    "a table that is imported, copied, streamed or shared, and its items": (
        r"AWS::DynamoDB::Table (iam|kinesis|logs|s3):.*|.* dynamodb:(\w*Item|Query|Scan)"
        r"|.* dynamodb:(\w*Import|Import\w*|\w*TableReplica|(Enable|Disable|Update)Kinesis\w*)"
        r"|.* dynamodb:((Put|Delete)ResourcePolicy|UpdateContributorInsights)"
    ),
    "a connection to another database": r".* glue:\w*Connection",
    "a stack's policy and protection": r".* cloudformation:(\w*StackPolicy|UpdateTermination\w*)",
    "managed policies and boundaries": r".* iam:\w*(AttachRole|DetachRole|Boundary|UpdateRole)\w*",
    "a stream's encryption by a key": r".* firehose:(Start|Stop)DeliveryStreamEncryption",
    "log groups that are masked, indexed or protected": (
        r".* logs:\w*(DataProtection|Index|BearerToken|DeletionProtection)\w*"
        r"|.* logs:(DeleteResourcePolicy|DeleteRetentionPolicy)"
        r"|AWS::Logs::LogGroup firehose:.*"
    ),
    "machines of one's own": r".* codedeploy:RegisterOnPremisesInstance",
    "masked topics": r".* sns:(Put|Get)DataProtectionPolicy",
    "secrets that are replicated or read": (r".* secretsmanager:(\w*Replicat\w*|GetSecretValue)"),
}

OF_ALL_LOGS = {
    *("CreateLogDelivery", "DescribeLogGroups", "DescribeResourcePolicies", "PutResourcePolicy"),
}


@dataclass(frozen=True)
class Call:
    action: str
    resource: str  # ARN, or * where IAM knows none
    passed_to: str = ""


@dataclass(frozen=True)
class Resource:
    kind: str
    logical: str
    properties: dict[str, Any]
    stack: str  # the name of the stack, nested or not

    @property
    def generated(self) -> str:
        return f"{self.stack}-{self.logical}-1A2B3C4D5E6F"

    def calls(self) -> Iterator[Call]:
        for action in HANDLERS[self.kind]:
            text = f"{self.kind} {action}"
            if not any(re.fullmatch(pattern, text) for pattern in NOT_NEEDED.values()):
                passed_to = PASSED_TO[self.kind] if action == "iam:PassRole" else ""
                for resource in _resources(action, self):
                    yield Call(action, resource, passed_to)


def all_resources() -> Iterator[Resource]:
    """Of every template, with each set of parameters that the scanners get."""
    for name in OF_THE_STACK:
        path = TEMPLATES[name]
        nested = {} if name == "template" else {"Name": STACK, "Id": ID}
        stack = f"{STACK}-{name.title()}-1AB2C3D4" if nested else STACK
        for parameters in DEPLOYMENTS[name]:
            given = {**parameters, **{k: v for k, v in nested.items() if _declares(path, k)}}
            for logical, body in resolved(transformed(path, **given), **given)["Resources"].items():
                yield Resource(body["Type"], logical, body.get("Properties", {}), stack)


def _declares(path: str, parameter: str) -> bool:
    return parameter in transformed(path)["Parameters"]


def _arn(service: str, rest: str, region: str = REGION, account: str = ACCOUNT) -> str:
    return f"arn:aws:{service}:{region}:{account}:{rest}"


def _resources(action: str, of: Resource) -> list[str]:  # noqa: C901, PLR0911, PLR0912 a service each
    """By the services' authorization references."""
    service, _, verb = action.partition(":")
    match service:
        case "apigateway":
            place = "domainnames" if "Domain" in of.kind or "Mapping" in of.kind else "apis"
            return [
                f"arn:aws:apigateway:{REGION}::/{place}{rest}" for rest in ("", "/a1", "/a1/b/c")
            ]
        case "application-autoscaling":
            return ["*"] if verb.startswith("Describe") else [_arn(service, "scalable-target/0ec5")]
        case "athena":
            return [_arn(service, f"workgroup/{STACK}")]
        case "cloudformation":
            return [_arn(service, f"stack/{of.generated}/{ID}")]
        case "cloudwatch":
            return [_of_cloudwatch(verb, of)]
        case "codedeploy":
            return [_of_codedeploy(verb, of)]
        case "dynamodb":
            return [_arn(service, f"table/{of.properties['TableName']}")]
        case "firehose":
            return [_arn(service, f"deliverystream/{of.properties['DeliveryStreamName']}")]
        case "glue":
            database = f"database/{STACK.replace('-', '_')}"
            table = f"table/{STACK.replace('-', '_')}/decisions"
            return [_arn(service, each) for each in ("catalog", database, table)]
        case "iam" if verb == "CreateServiceLinkedRole":
            scaling = "lambda.application-autoscaling.amazonaws.com"
            linked = f"aws-service-role/{scaling}/AWSServiceRoleForApplicationAutoScaling"
            return [_arn(service, f"role/{linked}", region="")]
        case "iam":
            return [_arn(service, f"role/{of.generated}", region="")]
        case "lambda":
            return _of_lambda(verb, of)
        case "logs":
            return _of_logs(verb, of)
        case "route53":
            place = "change/C1" if verb == "GetChange" else "hostedzone/Z1"
            return [f"arn:aws:route53:::{place}"]
        case "s3" if of.kind.startswith("AWS::Lambda"):
            return [f"arn:aws:s3:::{ARTIFACTS}/0cc175b9c0f1b6a831c399e269772661"]
        case "s3":
            return [f"arn:aws:s3:::{of.generated.lower()}"]
        case "secretsmanager":
            name = f"secret:{of.logical}-9zYx8W-AbCdEf"
            return ["*" if verb == "GetRandomPassword" else _arn(service, name)]
        case "sns":
            return [_arn(service, of.generated)]
    raise AssertionError(action)


def _of_cloudwatch(verb: str, of: Resource) -> str:
    if verb in ("DescribeAlarms", "GetMetricData"):
        return "*"
    if of.kind == "AWS::CloudWatch::Dashboard":
        return _arn("cloudwatch", f"dashboard/{of.properties['DashboardName']}", region="")
    scaling = f"TargetTracking-function:{STACK}:live-AlarmHigh-{ID}"
    return _arn("cloudwatch", f"alarm:{of.properties.get('AlarmName', scaling)}")


def _of_codedeploy(verb: str, of: Resource) -> str:
    application = f"{STACK}-ServerlessDeploymentApplication-1A2B"
    if verb == "GetDeploymentConfig":
        name = "deploymentconfig:CodeDeployDefault.LambdaCanary10Percent5Minutes"
        return _arn("codedeploy", name)
    if of.kind == "AWS::CodeDeploy::Application" or "ApplicationRevision" in verb:
        return _arn("codedeploy", f"application:{application}")
    return _arn("codedeploy", f"deploymentgroup:{application}/{STACK}-FunctionDeploymentGroup-3C")


def _of_lambda(verb: str, of: Resource) -> list[str]:
    if "Layer" in verb:
        name = of.properties.get("LayerName", f"feedrank-{ID}-model")
        return [_arn("lambda", f"layer:{name}"), _arn("lambda", f"layer:{name}:3")]
    name = of.properties.get("FunctionName", STACK)
    name = STACK if name.startswith("${") else name
    if of.kind == "AWS::Lambda::Function":
        return [_arn("lambda", f"function:{name}")]
    return [_arn("lambda", f"function:{STACK}{qualifier}") for qualifier in ("", ":live", ":7")]


def _of_logs(verb: str, of: Resource) -> list[str]:
    if verb in OF_ALL_LOGS:
        return ["*"]
    name = of.properties["LogGroupName"]
    if not name.startswith("/"):  # a reference
        name = (
            f"/aws/kinesisfirehose/{STACK}-decisions" if "Deliv" in name else f"/aws/lambda/{STACK}"
        )
    return [_arn("logs", f"log-group:{name}"), _arn("logs", f"log-group:{name}:*")]
