"""Stacks in one account are isolated from each other, however similar their names are."""

import re

import pytest

from stack.account import Stack
from stack.iam import allowed
from stack.transform import Json

# Of two stacks that one AWS host created within a second: the last part of a UUID is the host's.
UUIDS = "1c2fa620-982a-11e3-aff7-50e2416294e0", "1c3bb500-982a-11e3-aff7-50e2416294e0"
OTHERS = [
    "feed",
    "feedrank2",
    "feedrank-canary",
    "feedrank-prod",
    "feedrank-prod-eu",
    "feedrank-release",
]
# List or trace operations, for which IAM has no narrower resource:
# https://docs.aws.amazon.com/service-authorization/latest/reference/
ACCOUNT_WIDE = {
    "cloudwatch:DescribeAlarms",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}


@pytest.fixture(scope="module")
def stack() -> Stack:
    return Stack("feedrank", UUIDS[0])


def _reached(statements: list[dict[str, Json]], other: Stack) -> set[tuple[str, str]]:
    """Each action of these statements, with each resource of the other stack that it allows."""
    return {
        (action, arn)
        for statement in statements
        for action in _as_list(statement["Action"])
        for arn in other.arns
        if allowed([{"Statement": [statement]}], action, arn)
    }


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", OTHERS)
def test_no_role_reaches_a_resource_of_another_stack(stack: Stack, name: str) -> None:
    other = Stack(name, UUIDS[1])
    assert {action for action, _ in _reached(stack.statements, other)} <= ACCOUNT_WIDE
    assert {action for action, _ in _reached(other.statements, stack)} <= ACCOUNT_WIDE


def test_each_statement_reaches_a_resource_of_its_own_stack(stack: Stack) -> None:
    """Otherwise the test above would pass for names that no stack has."""
    idle = [
        statement["Sid"]
        for statement in stack.statements
        if "Condition" not in statement and not _reached([statement], stack)
    ]
    assert idle == ["ReadGoldenRequests"]  # for ModelUri, in a bucket outside the stack


def test_a_wildcard_after_the_name_is_detected(stack: Stack) -> None:
    wide = stack.statements
    for statement in wide:
        for resource in _as_list(statement["Resource"]):
            if resource.endswith(":function:feedrank:*"):
                statement["Resource"] = resource.replace("feedrank:*", "feedrank*")
    reached = _reached(wide, Stack("feedrank-prod", UUIDS[1]))
    assert "lambda:UpdateAlias" in {action for action, _ in reached}


def test_no_other_stack_has_a_resource_of_the_same_name(stack: Stack) -> None:
    """Tries as a stack name every prefix of our names that starts at `feedrank`."""
    tails = {one[one.find("feedrank") :] for one in stack.names}
    starts = {tail[:end] for tail in tails for end in range(len("feedrank") + 1, len(tail) + 1)}
    names = sorted(filter(re.compile("[A-Za-z][A-Za-z0-9-]*").fullmatch, starts))
    assert "feedrank-decisions" in names
    for name in names:
        assert Stack(name, UUIDS[1]).names & stack.names == set(), name
