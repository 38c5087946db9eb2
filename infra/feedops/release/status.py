"""`feedrank status`: what a stack serves, its alarms, and whether CloudFormation agrees."""

from collections import Counter
from collections.abc import Iterator

from rich.console import Console

from feedops.display import print_facts, print_whole
from feedops.release.account import Account, connect, explained
from feedops.release.deployed import (
    MODEL,
    Deployed,
    Served,
    published_versions,
    read_stack,
    served,
)
from feedops.release.shift import Shifts, alarms

KEPT = 5  # earlier versions that are listed


def status(name: str, output: Console) -> None:
    """Raises OperationError where AWS can't be asked."""
    with explained(name):
        account = connect()
        stack = read_stack(account, name)
        now = served(account, name)
        facts = {"stack": f"{stack.name}, {stack.status}", **served_facts(now)}
        facts["earlier"] = _earlier(account, stack, now)
        print_facts(output, facts | _alarm_facts(account, stack))
        for line in _remarks(account, stack, now):
            print_whole(output, line)


def served_facts(now: Served) -> dict[str, str]:
    facts = {}
    for version in now.versions:
        facts[f"version {version.number}"] = f"{version.weight:.0%} of the traffic: {version.model}"
        facts[f"digest {version.number}"] = version.digest or "the layer's; GET /model tells it"
        facts[f"since {version.number}"] = version.published
    return facts


def _earlier(account: Account, stack: Deployed, now: Served) -> str:
    shown = {version.number for version in now.versions}
    others = [v for v in published_versions(account, stack.name) if v.number not in shown]
    return "; ".join(str(version) for version in others[:KEPT]) or "none"


def _alarm_facts(account: Account, stack: Deployed) -> dict[str, str]:
    states = alarms(account, stack)
    counts = Counter(state for state, _ in states.values())
    facts = {"alarms": ", ".join(f"{counts[state]} {state}" for state in sorted(counts)) or "none"}
    for name, (state, reason) in states.items():
        if state == "ALARM":
            facts[name.partition("/")[2]] = reason
    return facts


def _remarks(account: Account, stack: Deployed, now: Served) -> Iterator[str]:
    if stack.is_changing:
        shift = Shifts(account, stack).under_way()
        if shift:
            yield f"Deployment {shift.id}: {'; '.join(shift.lines()) or shift.status}"
    elif stack.version not in ("", now.alias_version):
        yield (
            f"The alias was moved: CloudFormation has version {stack.version} and "
            f"{MODEL}={stack.model}. The next release needs --realign"
        )
