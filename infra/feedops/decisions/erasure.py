"""Erases a user's decision records, and reads everything a second time as the proof."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from feedops.decisions.stored_records import PassCounts, stored_records
from feedops.decisions.user_records import UserRecords
from feedops.display import print_facts, print_whole, steps
from feedops.errors import OperationError
from feedrank.domain import MAX_ID_LENGTH
from feedrank.features.spec import Ids
from feedrank.settings import MIN_KEY_LENGTH


def erase(
    user: int | str,
    source: str,
    key_variables: Sequence[str],
    log_groups: str,
    console: Console,
    *,
    dry_run: bool,
) -> None:
    """Prints what was done, what is left and what is out of reach. Raises OperationError where a
    record is left, or an object could not be read."""
    records, stored = UserRecords(user, _keys(key_variables)), stored_records(source)
    with steps(console, f"Reading {source}"):
        first = stored.pass_over(records, erase=not dry_run)
    second = None
    if not dry_run:
        with steps(console, "Reading it all again"):
            second = stored.pass_over(records, erase=False)
    print_facts(console, _facts(first, second))
    for line in _out_of_reach(source, log_groups):
        print_whole(console, f"not reached: {line}")
    _check(first, second)


def user_id(user: str, ids: Ids) -> int | str:
    """Raises OperationError: for a misspelt id nothing would be found."""
    if ids == "text":
        if not 1 <= len(user) <= MAX_ID_LENGTH:
            raise OperationError(f"--user: a text id has 1 to {MAX_ID_LENGTH} characters")
        return user
    if not user.isascii() or not user.isdigit() or str(int(user)) != user:
        raise OperationError(
            f"--user {user!r}: must be a user's id, a whole number such as 42, or any text with "
            "--ids text"
        )
    return int(user)


def _keys(variables: Sequence[str]) -> list[str]:
    for name in variables:
        if len(os.environ.get(name, "").strip()) < MIN_KEY_LENGTH:
            raise OperationError(
                f"--key-env {name}: holds no key of {MIN_KEY_LENGTH} characters or more"
            )
    return [os.environ[name] for name in variables]


def _facts(first: PassCounts, second: PassCounts | None) -> dict[str, str]:
    facts = {"read": _objects(first), "records": f"{first.records:,} of this user's"}
    if second:
        facts["changed"] = f"{first.changed:,} objects and versions"
        facts["read again"] = _objects(second)
        facts["left"] = f"{second.records:,} of this user's records"
    return facts


def _objects(counts: PassCounts) -> str:
    return f"{counts.objects:,} objects, {counts.versions:,} earlier versions"


def _check(first: PassCounts, second: PassCounts | None) -> None:
    unread = first.unread | (second.unread if second else {})
    rest = second.records if second else 0
    if unread or rest:
        lines = [f"{name} {reason}" for name, reason in sorted(unread.items())]
        head = f"not done: {rest:,} records are left, {len(lines):,} objects were not read"
        raise OperationError("\n".join([head, *lines]))


def _out_of_reach(source: str, log_groups: str) -> list[str]:
    if not source.startswith("s3://"):
        return ["what the function printed, and files of other names"]
    return [
        "records that Firehose still has: run this again after a quarter of an hour",
        "Athena's results, which the stack's bucket keeps for 7 days, and copies of your own",
        "the feature tables of bundles, and of runs in MLflow: publish without the user",
        *_log_groups(log_groups),
    ]


def _log_groups(prefix: str) -> list[str]:
    """Log groups with the retention of each: single lines of one can't be erased."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        pages = boto3.client("logs").get_paginator("describe_log_groups")
        groups = [g for p in pages.paginate(logGroupNamePrefix=prefix) for g in p["logGroups"]]
    except (BotoCoreError, ClientError) as error:
        return [f"the log groups {prefix}*, which can't be listed: {error}"]
    return [f"log group {group['logGroupName']}: its lines {_expiry(group)}" for group in groups]


def _expiry(group: Mapping[str, Any]) -> str:
    days = group.get("retentionInDays")
    return f"expire after {days} days" if days else "never expire"
