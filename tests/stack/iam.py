"""What a role may do: its policies as deployed, evaluated by AWS's documented rules.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
A name matches to the character, but for `*` and `?`; an action in any case. A denial wins.
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
# What CloudFormation would put in for what only exists once it is made.
MADE = {
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
}


def policies(path: str, role: str, **parameters: str) -> list[dict[str, Json]]:
    """The documents of a role of the template at `path`, as IAM would get them."""
    stack = resolved(transformed(path, **parameters), **parameters)
    properties = _made(stack["Resources"][role]["Properties"])
    return [policy["PolicyDocument"] for policy in properties["Policies"]]


def bucket_policy(path: str, policy: str, **parameters: str) -> dict[str, Json]:
    """The document of a bucket's policy, as S3 would get it."""
    stack = resolved(transformed(path, **parameters), **parameters)
    document: dict[str, Json] = _made(stack["Resources"][policy]["Properties"]["PolicyDocument"])
    return document


def become(documents: list[dict[str, Json]], monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on each call to moto of this test is signed by a role with these policies."""
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
    boto3.DEFAULT_SESSION = None  # it has the credentials of before


def allowed(documents: list[dict[str, Json]], action: str, resource: str, **context: str) -> bool:
    """Whether a role with these policies may do it; `context` has the keys that a condition
    asks for, with `_` for their colons and dashes."""
    return _effects(documents, action, resource, context) == {"Allow"}


def denied(document: dict[str, Json], action: str, resource: str, **context: str) -> bool:
    """Whether the policy of a resource denies it, whatever the caller's own policies allow."""
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
        and _fulfilled(statement.get("Condition", {}), context)
    }


def _covers(patterns: str | list[str], name: str, *, ignore_case: bool = False) -> bool:
    return any(
        _matches(pattern, name, re.IGNORECASE if ignore_case else re.NOFLAG)
        for pattern in ([patterns] if isinstance(patterns, str) else patterns)
    )


def _matches(pattern: str, name: str, flags: re.RegexFlag = re.NOFLAG) -> bool:
    assert "${" not in pattern, f"neither a policy variable nor made by CloudFormation: {pattern}"
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, name, flags | re.DOTALL) is not None


def _fulfilled(conditions: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    return all(
        _holds(operator, context.get(re.sub("[:-]", "_", key)), expected)
        for operator, keys in conditions.items()
        for key, expected in keys.items()
    )


def _holds(operator: str, value: str | None, expected: str | list[str]) -> bool:
    """A key that the request lacks fulfils no operator but Null and a negated one."""
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


def _made(node: Json) -> Json:
    match node:
        case str():
            return re.sub(r"\$\{([^}]+)\}", lambda found: MADE.get(found[1], found[0]), node)
        case dict():
            return {key: _made(child) for key, child in node.items()}
        case list():
            return [_made(child) for child in node]
    return node
