"""Points the alias to a version that can be invoked. Lambda deactivates one of
SnapStart after 14 days without an invocation; the next one fails, and begins to restore it.
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-activate.html#snapstart-function-states"""

import json
import time

from rich.console import Console

from feedops.display import steps
from feedops.errors import OperationError
from feedops.release.account import Account, code_of
from feedops.release.deployed import ALIAS, Deployed, Served, Version, read_version

POLL_S = 5.0
MAX_POLLS = 120  # ten minutes
ACTIVE, INACTIVE = "Active", "Inactive"
CHANGES = {"Pending", INACTIVE}  # states that may still become Active
NOT_YET = {"SnapStartNotReadyException", "ResourceNotReadyException"}
PING = json.dumps({"warm": True}).encode()


def point_alias(
    account: Account, stack: Deployed, now: Served, number: str, output: Console
) -> None:
    """Gives a version all the traffic, once it is active. AWS refuses it if somebody has moved the
    alias since `now` was read. Raises OperationError."""
    _make_ready(account, stack, number, output)
    account.functions.update_alias(
        FunctionName=stack.name,
        Name=ALIAS,
        FunctionVersion=number,
        RoutingConfig={"AdditionalVersionWeights": {}},
        RevisionId=now.revision,
    )


def _make_ready(account: Account, stack: Deployed, number: str, output: Console) -> None:
    """Restores an inactive version, and waits until it is active. Raises OperationError where it
    doesn't become so: the alias must stay."""
    version = read_version(account, stack.name, number)
    if version.is_ready:
        return
    if version.state == INACTIVE:
        _invoke(account, stack, number)
    with steps(output, f"Version {number} is {version.state}: Lambda restores it"):
        for _ in range(MAX_POLLS):
            version = read_version(account, stack.name, number)
            if version.is_ready:
                return
            if version.state not in CHANGES | {ACTIVE}:
                break
            time.sleep(POLL_S)
    raise OperationError(_refusal(stack, version))


def _invoke(account: Account, stack: Deployed, number: str) -> None:
    from botocore.exceptions import ClientError

    try:
        account.functions.invoke(FunctionName=stack.name, Qualifier=number, Payload=PING)
    except ClientError as error:
        if code_of(error) not in NOT_YET:
            raise


def _refusal(stack: Deployed, version: Version) -> str:
    reason = f": {version.state_reason}" if version.state_reason else ""
    return (
        f"{stack.name}: version {version.number} is {version.state}{reason}\n"
        f"the alias stays; take another one: feedrank rollback --stack {stack.name} --to NUMBER"
    )
