"""What a role may do: its policies as deployed, evaluated by AWS's documented rules.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
A name matches to the character, but for `*` and `?`; an action in any case. A denial wins.
"""

import re
from collections.abc import Mapping
from typing import Any

from stack.transform import PSEUDO, Json, resolved, transformed

REGION, ACCOUNT = PSEUDO["AWS::Region"], PSEUDO["AWS::AccountId"]
BUNDLES, DECISIONS = "feedrank-dev-bundles", "feedrank-dev-decisions"
VERSION_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:feedrank-dev:7"
ID = "50e2416294e0"  # the end of PSEUDO's StackId
CANARY_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:CodeDeployHook_feedrank-{ID}"
# What CloudFormation would put in for what only exists once it is made.
MADE = {
    "FunctionLogs.Arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/feedrank-dev:*",
    "CanaryLogs.Arn": (
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/feedrank-dev-canary:*"
    ),
    "Data.Outputs.BundleBucketArn": f"arn:aws:s3:::{BUNDLES}",
    "Data.Outputs.DirectStreamArn": (
        f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/feedrank-{ID}-decisions-direct"
    ),
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


def allowed(documents: list[dict[str, Json]], action: str, resource: str, **context: str) -> bool:
    """Whether a role with these policies may do it; `context` has the keys that a condition
    asks for, with `_` for their colon."""
    effects = {
        statement["Effect"]
        for document in documents
        for statement in document["Statement"]
        if _covers(statement["Action"], action, ignore_case=True)
        and _covers(statement["Resource"], resource)
        and _fulfilled(statement.get("Condition", {}), context)
    }
    return effects == {"Allow"}


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
    """All of them. A key that the request lacks fulfils none."""
    for operator, expected in conditions.items():
        assert operator in ("StringEquals", "StringLike"), operator
        for key, patterns in expected.items():
            value = context.get(key.replace(":", "_"))
            exact = [patterns] if isinstance(patterns, str) else patterns
            if value is None or not (
                value in exact if operator == "StringEquals" else _covers(patterns, value)
            ):
                return False
    return True


def _made(node: Json) -> Json:
    match node:
        case str():
            return re.sub(r"\$\{([^}]+)\}", lambda found: MADE.get(found[1], found[0]), node)
        case dict():
            return {key: _made(child) for key, child in node.items()}
        case list():
            return [_made(child) for child in node]
    return node
