"""`feedrank status`: what a stack serves, its alarms, and whether CloudFormation agrees."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from feedops.display import print_facts, print_whole
from feedops.release.account import Account, connect, explained
from feedops.release.deployed import (
    MODEL,
    Deployed,
    Served,
    Version,
    published_versions,
    read_stack,
    served,
)
from feedops.release.shift import Shifts, alarms

KEPT = 5  # earlier versions that are listed
SHOWN_DIGITS = 12  # of a digest, as in responses
ALARM = "ALARM"


def status(name: str, output: Console) -> None:
    """Raises OperationError where AWS can't be asked."""
    with explained(name):
        account = connect()
        stack = read_stack(account, name)
        now = served(account, name)
        print_whole(output, f"{stack.name} is {stack.status}, {MODEL}={stack.model}")
        print_versions(output, now, _earlier(account, stack, now))
        print_facts(output, _alarm_facts(account, stack))
        for line in _remarks(account, stack, now):
            print_whole(output, line)


def print_versions(output: Console, now: Served, earlier: Sequence[Version] = ()) -> None:
    """Those that get traffic, and then `earlier` ones."""
    table = Table(box=SIMPLE, pad_edge=False, show_edge=False)
    for heading in ("version", "traffic"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("model", "digest", "published"):
        table.add_column(heading, no_wrap=True)
    for version in now.versions:
        table.add_row(version.number, f"{version.weight:.0%}", *_cells(version), style="bold")
    for version in earlier:
        table.add_row(version.number, "", *_cells(version), style="dim")
    output.print(table)


def _cells(version: Version) -> tuple[str, str, str]:
    return version.model_name, version.digest[:SHOWN_DIGITS] or "see /model", version.published


def _earlier(account: Account, stack: Deployed, now: Served) -> list[Version]:
    shown = {version.number for version in now.versions}
    return [v for v in published_versions(account, stack.name) if v.number not in shown][:KEPT]


def _alarm_facts(account: Account, stack: Deployed) -> dict[str, str]:
    states = alarms(account, stack)
    counts = Counter(state for state, _ in states.values())
    facts = {"alarms": ", ".join(f"{counts[state]} {state}" for state in sorted(counts)) or "none"}
    for name, (state, reason) in states.items():
        if state == ALARM:
            facts[f"  {name.partition('/')[2]}"] = reason
    return facts


def _remarks(account: Account, stack: Deployed, now: Served) -> Iterator[str]:
    if stack.is_changing:
        shift = Shifts(account, stack).under_way()
        if shift:
            yield f"Deployment {shift.id}: {'; '.join(shift.lines()) or shift.status}"
    elif stack.is_moved(now):
        yield from moved_lines(stack)


def moved_lines(stack: Deployed) -> Iterator[str]:
    """What the alias needs before CodeDeploy shifts its traffic again."""
    name = stack.name
    yield f"The alias was moved: CloudFormation still has version {stack.version}. Before"
    yield f"  another model   feedrank release MODEL --stack {name} --realign"
    yield f"  a `sam deploy`  feedrank rollback --stack {name} --to {stack.version}"
