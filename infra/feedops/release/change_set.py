"""An update of one parameter as a change set: the stack's previous template, and the previous value
of every other parameter."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from feedops.errors import OperationError
from feedops.release.account import Account, code_of, message_of
from feedops.release.deployed import Deployed

POLL_S = 2.0
# SAM's transform, in the nested templates too, and the roles, whose names CloudFormation makes up.
CAPABILITIES = {"CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"}
UNCHANGED = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """`changes` are CloudFormation's `ResourceChange`s; `arn` is empty where nothing would
    change."""

    arn: str
    changes: tuple[Mapping[str, Any], ...]


def create(account: Account, stack: Deployed, parameter: str, value: str) -> ChangeSet:
    """Waits until CloudFormation has computed it. Raises OperationError with its reason."""
    from botocore.exceptions import ClientError

    parameters: list[dict[str, Any]] = [
        {"ParameterKey": name, "UsePreviousValue": True}
        for name in stack.parameters
        if name != parameter
    ]
    parameters.append({"ParameterKey": parameter, "ParameterValue": value})
    try:
        arn = account.cloudformation.create_change_set(
            StackName=stack.name,
            ChangeSetName=f"feedrank-release-{secrets.token_hex(6)}",
            ChangeSetType="UPDATE",
            UsePreviousTemplate=True,
            Parameters=parameters,
            Capabilities=sorted(CAPABILITIES | stack.capabilities),
        )["Id"]
    except ClientError as error:
        if code_of(error) == "ValidationError":
            raise OperationError(f"{stack.name}: {message_of(error)}") from error
        raise
    return _computed(account, stack, arn)


def _computed(account: Account, stack: Deployed, arn: str) -> ChangeSet:
    while True:
        pages = account.cloudformation.get_paginator("describe_change_set")
        described = list(pages.paginate(StackName=stack.name, ChangeSetName=arn))
        status, reason = described[0]["Status"], described[0].get("StatusReason", "")
        if status == "CREATE_COMPLETE":
            changes = [change for page in described for change in page.get("Changes", ())]
            return ChangeSet(arn, tuple(change["ResourceChange"] for change in changes))
        if status == "FAILED":
            delete(account, stack, arn)
            if any(text in reason for text in UNCHANGED):
                return ChangeSet("", ())
            raise OperationError(f"{stack.name}: the change set failed: {reason}")
        time.sleep(POLL_S)


def delete(account: Account, stack: Deployed, arn: str) -> None:
    account.cloudformation.delete_change_set(StackName=stack.name, ChangeSetName=arn)


def execute(account: Account, stack: Deployed, change_set: ChangeSet) -> None:
    account.cloudformation.execute_change_set(StackName=stack.name, ChangeSetName=change_set.arn)


def print_changes(change_set: ChangeSet, console: Console) -> None:
    if not change_set.changes:
        return
    table = Table("change", "resource", "type", box=SIMPLE, pad_edge=False, show_edge=False)
    for change in change_set.changes:
        replaced = change.get("Replacement") == "True"
        table.add_row(
            "Replace" if replaced else change["Action"],
            change["LogicalResourceId"],
            change["ResourceType"],
        )
    console.print(table)
