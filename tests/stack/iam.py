"""Evaluates policies, as they are deployed, by AWS's documented rules.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
Names match exactly, except for `*` and `?`; actions ignore case. A Deny wins.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from stack.transform import PSEUDO, Json, resolved, transformed

REGION, ACCOUNT = PSEUDO["AWS::Region"], PSEUDO["AWS::AccountId"]
BUNDLES, DECISIONS = "feedrank-dev-bundles", "feedrank-dev-decisions"
VERSION_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:feedrank-dev:7"
ID = "1c2fa620-982a-11e3-aff7-50e2416294e0"  # in PSEUDO's StackId
CANARY_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:CodeDeployHook_feedrank-{ID}"
RECORD_ID_KEY_ARN = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:RecordIdKey-9zYx8W-AbCdEf"
# The values that CloudFormation would substitute for resources that it creates.
CREATED = {
    "FunctionLogs.Arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/feedrank-dev:*",
    "CanaryLogs.Arn": (
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/CodeDeployHook_feedrank-{ID}:*"
    ),
    "Data.Outputs.BundleBucketArn": f"arn:aws:s3:::{BUNDLES}",
    "Data.Outputs.DirectStreamArn": (
        f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/feedrank-{ID}-decisions-direct"
    ),
    "BundleBucket.Arn": f"arn:aws:s3:::{BUNDLES}",
    "Data.Outputs.RecordIdKeyArn": RECORD_ID_KEY_ARN,
    "DecisionsBucket.Arn": f"arn:aws:s3:::{DECISIONS}",
    "DeliveryLog": "/aws/kinesisfirehose/feedrank-dev-decisions",
    "LogsStream.Arn": (
        f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/feedrank-{ID}-decisions-logs"
    ),
    "Canary.Arn": CANARY_ARN,
    "StreamLogs.Arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:StreamLogs-9zYx8W:*",
    "EventQueue.Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:EventQueue-9zYx8W",
    "EventIds.Arn": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/EventIds-9zYx8W",
}


def policies(path: str, role: str, **parameters: str) -> list[dict[str, Json]]:
    """The policy documents of a role in the template at `path`, as IAM gets them."""
    stack = resolved(transformed(path, **parameters), **parameters)
    properties = _substituted(stack["Resources"][role]["Properties"])
    return [policy["PolicyDocument"] for policy in properties["Policies"]]


def bucket_policy(path: str, policy: str, **parameters: str) -> dict[str, Json]:
    """The document of a bucket policy, as S3 gets it."""
    stack = resolved(transformed(path, **parameters), **parameters)
    document: dict[str, Json] = _substituted(
        stack["Resources"][policy]["Properties"]["PolicyDocument"]
    )
    return document


def become(documents: list[dict[str, Json]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs all further calls of this test to moto as a role with these policies."""
    iam = boto3.client("iam")
    trust = {"Version": "2012-10-17", "Statement": []}
    iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(trust))
    for number, document in enumerate(documents):
        iam.put_role_policy(
            RoleName="role", PolicyName=str(number), PolicyDocument=json.dumps(document)
        )
    session = boto3.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/role", RoleSessionName="test"
    )
    for name, value in {
        "AWS_ACCESS_KEY_ID": session["Credentials"]["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["Credentials"]["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["Credentials"]["SessionToken"],
    }.items():
        monkeypatch.setenv(name, value)
    boto3.DEFAULT_SESSION = None  # it holds the previous credentials


def allowed(documents: list[dict[str, Json]], action: str, resource: str, **context: str) -> bool:
    """Whether a role with these policies may perform the action; `context` has the condition keys,
    with `_` in place of colons and dashes."""
    return _effects(documents, action, resource, context) == {"Allow"}


def denied(document: dict[str, Json], action: str, resource: str, **context: str) -> bool:
    """Whether the policy of a resource denies the action, whatever the caller's policies allow."""
    return "Deny" in _effects([document], action, resource, context)


def _effects(
    documents: list[dict[str, Json]], action: str, resource: str, context: Mapping[str, str]
) -> set[str]:
    return {
        statement["Effect"]
        for document in documents
        for statement in document["Statement"]
        if _covers(statement["Action"], action, ignore_case=True)
        and _covers(statement["Resource"], resource)
        and _conditions_hold(statement.get("Condition", {}), context)
    }


def _covers(patterns: str | list[str], name: str, *, ignore_case: bool = False) -> bool:
    return any(
        _matches(pattern, name, re.IGNORECASE if ignore_case else re.NOFLAG)
        for pattern in ([patterns] if isinstance(patterns, str) else patterns)
    )


def _matches(pattern: str, name: str, flags: re.RegexFlag = re.NOFLAG) -> bool:
    assert "${" not in pattern, f"an unresolved variable: {pattern}"
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, name, flags | re.DOTALL) is not None


def _conditions_hold(conditions: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    return all(
        _holds(operator, context.get(re.sub("[:-]", "_", key)), expected)
        for operator, keys in conditions.items()
        for key, expected in keys.items()
    )


def _holds(operator: str, value: str | None, expected: str | list[str]) -> bool:
    """A missing key satisfies only Null and negated operators."""
    match operator:
        case "Null":
            return (value is None) is (expected == "true")
        case "ArnNotEquals":
            return value is None or not _covers(expected, value)
        case "ArnEquals" | "StringLike":
            return value is not None and _covers(expected, value)
        case "Bool" | "StringEquals":
            exact = [expected] if isinstance(expected, str) else expected
            return value is not None and value in exact
    raise AssertionError(operator)


def _substituted(node: Json) -> Json:
    match node:
        case str():
            return re.sub(r"\$\{([^}]+)\}", lambda match: CREATED.get(match[1], match[0]), node)
        case dict():
            return {key: _substituted(child) for key, child in node.items()}
        case list():
            return [_substituted(child) for child in node]
    return node
