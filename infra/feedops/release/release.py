"""`feedrank release`: publishes a model, and gives its bundle to a stack as its one change."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console

from feedops.display import print_whole, steps
from feedops.errors import OperationError
from feedops.release import candidates, change_set
from feedops.release.account import Account, connect, explained
from feedops.release.deployed import MODEL, Deployed, Served, read_stack, served
from feedops.release.follow import Update
from feedops.release.ready import point_alias
from feedops.release.status import print_versions

if TYPE_CHECKING:
    from feedmodel.publish.build import PublishOptions

POLL_S = 10.0
# States from which CloudFormation updates a stack.
UPDATABLE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"}


def release(
    model: str,
    name: str,
    options: Callable[[], "PublishOptions"],
    output: Console,
    messages: Console,
    *,
    dry_run: bool,
    realign: bool,
    wait: bool,
) -> None:
    """`model` is one in MLflow, which `options` tells how to publish, or a bundle's URI. Raises
    OperationError, also where CloudFormation rolls the update back."""
    with explained(name):
        account = connect()
        stack = _read_when_free(account, name, messages) if wait else read_stack(account, name)
        _check_state(stack)
        before = served(account, name)
        if stack.is_moved(before) and not (dry_run or realign):
            raise OperationError(_moved(stack, before))
        if candidates.is_published(model):
            candidate = candidates.published(account, model)
            candidates.check(stack, candidate)
        else:
            with steps(messages, f"Publishing {model}") as say:
                candidate = candidates.publish(stack, options(), dry_run=dry_run, step=say)
        if candidates.is_same(stack.model, candidate.uri):
            print_whole(output, f"{name} has {MODEL}={stack.model} already: nothing to release")
            if stack.is_moved(before) and realign and not dry_run:
                point_alias(account, stack, before, stack.version, output)
            _print_served(account, stack, output)
            return
        changes = change_set.create(account, stack, MODEL, candidate.uri)
        if not changes.arn:
            raise OperationError(f"{name}: CloudFormation sees no change by {candidate.uri}")
        print_whole(output, f"{candidate.manifest.model_version}, {MODEL}={candidate.uri}")
        change_set.print_changes(changes, output)
        if dry_run:
            change_set.delete(account, stack, changes.arn)
            print_whole(output, f"Not executed: {MODEL}={stack.model} stays")
            return
        if stack.is_moved(before):  # CodeDeploy compares the alias with CloudFormation's version
            point_alias(account, stack, before, stack.version, output)
        _execute(account, stack, changes, candidate.uri, output)


def _read_when_free(account: Account, name: str, messages: Console) -> Deployed:
    """Waits for the end of whatever changes the stack."""
    stack = read_stack(account, name)
    if stack.is_changing:
        with steps(messages, f"Waiting: {name} is {stack.status}"):
            while stack.is_changing:
                time.sleep(POLL_S)
                stack = read_stack(account, name)
    return stack


def _check_state(stack: Deployed) -> None:
    if stack.is_changing:
        raise OperationError(
            f"{stack.name}: is being changed ({stack.status})\n"
            f"look: feedrank status --stack {stack.name}; "
            f"stop it: feedrank rollback --stack {stack.name}"
        )
    if stack.status == "UPDATE_ROLLBACK_FAILED":
        raise OperationError(
            f"{stack.name}: its last roll-back failed\ncontinue it: "
            f"aws cloudformation continue-update-rollback --stack-name {stack.name}"
        )
    if stack.status not in UPDATABLE:
        raise OperationError(
            f"{stack.name}: can't be updated, it is {stack.status}\n"
            f"delete it and deploy it again: sam delete --stack-name {stack.name}"
        )


def _moved(stack: Deployed, now: Served) -> str:
    return (
        f"{stack.name}: its alias was moved to version {now.alias_version}, and CodeDeploy "
        f"shifts traffic only from CloudFormation's, {stack.version}\n"
        f"--realign moves it back first: version {stack.version} then serves until the new one does"
    )


def _execute(
    account: Account, stack: Deployed, changes: change_set.ChangeSet, uri: str, output: Console
) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    update = Update(account, stack, output)
    change_set.execute(account, stack, changes)
    try:
        update.wait()
    except (KeyboardInterrupt, BotoCoreError, ClientError):
        print_whole(
            output,
            f"The update goes on. feedrank status --stack {stack.name} shows it; "
            f"feedrank rollback --stack {stack.name} stops it",
        )
        raise
    except OperationError as error:
        versions = ", ".join(map(str, served(account, stack.name).versions))
        raise OperationError(f"{error}\nserved: {versions}") from error
    now = _print_served(account, stack, output)
    if now.models != {uri.rstrip("/")}:
        raise OperationError(
            f"{stack.name}: the stack is updated, but its alias doesn't serve {uri} alone\n"
            f"look: feedrank status --stack {stack.name}"
        )
    print_whole(output, f"{stack.name} serves {uri}")


def _print_served(account: Account, stack: Deployed, output: Console) -> Served:
    now = served(account, stack.name)
    print_versions(output, now)
    return now
