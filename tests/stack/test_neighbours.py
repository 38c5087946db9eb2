"""Stacks of one account stay apart, however much their names have in common."""

import re

import pytest

from stack.account import Stack
from stack.iam import allowed
from stack.transform import Json

# Of two stacks that one host of AWS's made within a second: a UUID's end is the host's.
UUIDS = "1c2fa620-982a-11e3-aff7-50e2416294e0", "1c3bb500-982a-11e3-aff7-50e2416294e0"
OTHERS = [
    "feed",
    "feedrank2",
    "feedrank-canary",
    "feedrank-prod",
    "feedrank-prod-eu",
    "feedrank-release",
]
# They list or trace, and IAM has no narrower resource for them:
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
    """Each action of these statements, with each resource of the other stack that it may touch."""
    return {
        (action, arn)
        for statement in statements
        for action in _listed(statement["Action"])
        for arn in other.arns
        if allowed([{"Statement": [statement]}], action, arn)
    }


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", OTHERS)
def test_no_role_reaches_what_belongs_to_another_stack(stack: Stack, name: str) -> None:
    other = Stack(name, UUIDS[1])
    assert {action for action, _ in _reached(stack.statements, other)} <= ACCOUNT_WIDE
    assert {action for action, _ in _reached(other.statements, stack)} <= ACCOUNT_WIDE


def test_each_statement_reaches_something_of_its_own_stack(stack: Stack) -> None:
    """Else the test above would hold for names that no stack has."""
    idle = [
        statement["Sid"]
        for statement in stack.statements
        if "Condition" not in statement and not _reached([statement], stack)
    ]
    assert idle == ["ReadGoldenRequests"]  # of ModelUri, which is in a bucket of somebody's own


def test_a_wildcard_behind_the_name_is_found(stack: Stack) -> None:
    wide = stack.statements
    for statement in wide:
        for resource in _listed(statement["Resource"]):
            if resource.endswith(":function:feedrank:*"):
                statement["Resource"] = resource.replace("feedrank:*", "feedrank*")
    reached = _reached(wide, Stack("feedrank-prod", UUIDS[1]))
    assert "lambda:UpdateAlias" in {action for action, _ in reached}


def test_no_other_stack_has_a_name_of_ours(stack: Stack) -> None:
    """Whatever it is called: tried is all that a name of ours has from `feedrank` on."""
    tails = {one[one.find("feedrank") :] for one in stack.names}
    starts = {tail[:end] for tail in tails for end in range(len("feedrank") + 1, len(tail) + 1)}
    names = sorted(filter(re.compile("[A-Za-z][A-Za-z0-9-]*").fullmatch, starts))
    assert "feedrank-decisions" in names
    for name in names:
        assert Stack(name, UUIDS[1]).names & stack.names == set(), name
