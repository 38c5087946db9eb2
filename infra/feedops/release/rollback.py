"""`feedrank rollback`: stops an update that is under way, or else points the alias to an earlier
version, which takes effect within seconds."""

from rich.console import Console

from feedops.display import print_whole
from feedops.errors import OperationError
from feedops.release.account import Account, connect, explained
from feedops.release.deployed import (
    Deployed,
    Served,
    Version,
    published_versions,
    read_stack,
    served,
)
from feedops.release.follow import Update
from feedops.release.ready import point_alias
from feedops.release.status import moved_lines, print_versions

# The new version is served, and what it replaced is being removed: the alias can be moved.
CLEANING_UP = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"


def rollback(name: str, to: str | None, output: Console) -> None:
    """`to` is a version's number; without it, the newest one with another bundle that is older than
    what is served. Raises OperationError."""
    with explained(name):
        account = connect()
        stack = read_stack(account, name)
        if stack.is_changing and stack.status != CLEANING_UP:
            _stop(account, stack, to, output)
        else:
            _move(account, stack, to, output)
        now = served(account, name)
        print_versions(output, now)
        if stack.is_moved(now) and not stack.is_changing:
            for line in moved_lines(stack):
                print_whole(output, line)


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
    point_alias(account, stack, now, target.number, output)


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
