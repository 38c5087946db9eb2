"""`feedrank rollback`: stops an update that is under way, or else points the alias to an earlier
version, which takes effect within seconds."""

from rich.console import Console

from feedops.display import print_facts, print_whole
from feedops.errors import OperationError
from feedops.release.account import Account, connect, explained
from feedops.release.deployed import (
    ALIAS,
    MODEL,
    Deployed,
    Served,
    Version,
    published_versions,
    read_stack,
    served,
)
from feedops.release.follow import Update
from feedops.release.status import served_facts


def rollback(name: str, to: str | None, output: Console) -> None:
    """`to` is a version's number; without it, the newest one with another bundle that is older than
    what is served. Raises OperationError."""
    with explained(name):
        account = connect()
        stack = read_stack(account, name)
        if stack.is_changing:
            _stop(account, stack, to, output)
        else:
            _move(account, stack, to, output)
        print_facts(output, served_facts(served(account, name)))


def _stop(account: Account, stack: Deployed, to: str | None, output: Console) -> None:
    """CloudFormation then stops the deployment, which points the alias back."""
    if to is not None:
        raise OperationError(
            f"{stack.name}: is being changed ({stack.status}), so --to can't be followed\n"
            f"without --to the change is stopped: feedrank rollback --stack {stack.name}"
        )
    update = Update(account, stack, output)
    if stack.status == "UPDATE_IN_PROGRESS":
        account.cloudformation.cancel_update_stack(StackName=stack.name)
    elif stack.status != "UPDATE_ROLLBACK_IN_PROGRESS":
        raise OperationError(
            f"{stack.name}: {stack.status} can't be stopped; try again when it is over\n"
            f"look: feedrank status --stack {stack.name}"
        )
    update.wait_for_rollback()


def _move(account: Account, stack: Deployed, to: str | None, output: Console) -> None:
    now = served(account, stack.name)
    target = _target(published_versions(account, stack.name), now, to, stack)
    if [version.number for version in now.versions] == [target.number]:
        print_whole(output, f"{stack.name} serves version {target.number} alone already")
        return
    account.functions.update_alias(
        FunctionName=stack.name,
        Name=ALIAS,
        FunctionVersion=target.number,
        RoutingConfig={"AdditionalVersionWeights": {}},
        RevisionId=now.revision,  # refused if somebody moved it in between
    )
    if target.number != stack.version and stack.version:
        print_whole(
            output,
            f"CloudFormation still has version {stack.version} and {MODEL}={stack.model}: "
            "the next release needs --realign; before a `sam deploy`, go back: "
            f"feedrank rollback --stack {stack.name} --to {stack.version}",
        )


def _target(versions: list[Version], now: Served, to: str | None, stack: Deployed) -> Version:
    if to is None:
        return _previous(versions, now, stack)
    for version in versions:
        if version.number == to:
            return version
    there = ", ".join(version.number for version in versions)
    raise OperationError(f"{stack.name}: has no version {to}\nthese are there: {there or 'none'}")


def _previous(versions: list[Version], now: Served, stack: Deployed) -> Version:
    newest = max(now.versions, key=lambda version: int(version.number))
    for version in versions:
        is_other = version.model.rstrip("/") not in now.models or version.digest != newest.digest
        if int(version.number) < int(newest.number) and is_other:
            return version
    raise OperationError(
        f"{stack.name}: no earlier version has another bundle than version {newest.number}\n"
        f"feedrank status --stack {stack.name} lists the versions; name one: --to NUMBER"
    )
