"""`feedrank tail`: the requests and decisions of a stack, or of this machine, as they come."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from feedops.display import print_whole
from feedops.errors import OperationError
from feedops.release.account import Account, code_of, connect, explained
from feedops.release.lines import Filter, parse, shown
from feedops.workspace import LOGS

POLL_S = 2.0
LATE_MS = 10_000  # an event may become visible that much later than a newer one


def tail(
    stack: str | None, chosen: Filter, output: Console, *, follow: bool, as_json: bool
) -> None:
    """Of this machine without `stack`. Ends with Ctrl-C, or at the end without `follow`."""
    texts = _of_files(LOGS, follow=follow) if stack is None else _of(stack, chosen, follow=follow)
    try:
        for text in texts:
            line = parse(text)
            if line is not None and chosen.accepts(line):
                print_whole(output, json.dumps(line) if as_json else shown(line))
    except KeyboardInterrupt:
        return


def minutes_ago(minutes: float) -> str:
    """ISO 8601, as the lines have it."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _of(stack: str, chosen: Filter, *, follow: bool) -> Iterator[str]:
    from botocore.exceptions import ClientError

    with explained(stack):
        account = connect()
        try:
            yield from _of_log_group(account, f"/aws/lambda/{stack}", chosen.since, follow=follow)
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            raise OperationError(
                f"{stack}: there is no log group /aws/lambda/{stack} in {account.region}\n"
                "set AWS_REGION and AWS_PROFILE to where the stack is"
            ) from error


def _of_log_group(account: Account, group: str, since: str, *, follow: bool) -> Iterator[str]:
    """Each event once, though the last seconds are read again for those that are late."""
    start_ms = int(datetime.fromisoformat(since).timestamp() * 1_000)
    seen: dict[str, int] = {}  # times by the event's id
    while True:
        pages = account.logs.get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=group, startTime=start_ms):
            for event in page["events"]:
                if event["eventId"] not in seen:
                    seen[event["eventId"]] = event["timestamp"]
                    yield event["message"]
        if not follow:
            return
        start_ms = max(start_ms, max(seen.values(), default=0) - LATE_MS)
        seen = {name: at_ms for name, at_ms in seen.items() if at_ms >= start_ms}
        time.sleep(POLL_S)


def _of_files(directory: Path, *, follow: bool) -> Iterator[str]:
    """The logs of local environments; one that starts later is read too."""
    read: dict[Path, int] = {}  # bytes
    while True:
        for path in sorted(directory.glob("*/environment-*.log")):
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")  # the last line may be unfinished
            read[path] = read.get(path, 0) + len(whole) + len(newline)
            yield from (line.decode(errors="replace") for line in whole.split(b"\n"))
        if not follow:
            break
        time.sleep(POLL_S)
    if not read:
        raise OperationError(
            f"no log of a local environment in {directory}\nstart one: feedrank serve"
        )
