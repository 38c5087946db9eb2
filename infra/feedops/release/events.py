"""The events of an update of a stack: how it goes, how it ends, and what made it fail."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from feedops.release.account import Account

# In UPDATE_COMPLETE_CLEANUP_IN_PROGRESS the new version is served; what is left is removed.
DONE = {"UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"}
ROLLED_BACK = {"UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS"}
ROLLBACK_FAILED = {"UPDATE_ROLLBACK_FAILED", "UPDATE_FAILED"}
CONSEQUENCES = ("Resource update cancelled", "Resource creation cancelled")
NESTED = "AWS::CloudFormation::Stack"


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    at: datetime  # by the clock of AWS
    status: str
    resource: str  # its logical id
    kind: str
    reason: str
    physical_id: str
    stack_id: str

    @property
    def is_of_the_stack(self) -> bool:
        return self.physical_id == self.stack_id

    @property
    def is_failure(self) -> bool:
        """Of a resource, and not because of another one."""
        return (
            self.status.endswith("_FAILED")
            and not self.is_of_the_stack
            and not self.reason.startswith(CONSEQUENCES)
        )


class Events:
    """Those of one update. To be created before it starts: what is there by then is older."""

    def __init__(self, account: Account, stack_id: str) -> None:
        self._account = account
        self._stack_id = stack_id
        newest = next(_newest_first(account, stack_id), None)
        self._newest = newest.id if newest else ""
        self.start = newest.at if newest else datetime.now(UTC)
        self.all: list[Event] = []

    def new(self) -> list[Event]:
        """Those since the last call, the oldest first."""
        events = list(
            takewhile(
                lambda event: event.id != self._newest,
                _newest_first(self._account, self._stack_id),
            )
        )
        if events:
            self._newest = events[0].id
        events.reverse()
        self.all += events
        return events

    @property
    def end(self) -> str:
        """The status that the update has ended with; empty while it goes on."""
        ends = DONE | ROLLED_BACK | ROLLBACK_FAILED
        last = [event.status for event in self.all if event.is_of_the_stack][-1:]
        return last[0] if last and last[0] in ends else ""

    def first_failure(self) -> Event | None:
        """What the roll-back began with; of a nested stack, the failure in that one."""
        failure = next((event for event in self.all if event.is_failure), None)
        if failure is None or failure.kind != NESTED or not failure.physical_id:
            return failure
        return _failure_in(self._account, failure.physical_id) or failure


def _failure_in(account: Account, stack_id: str) -> Event | None:
    """Of the nested stack's last update: nothing before that began."""
    found = None
    for event in _newest_first(account, stack_id):
        if event.is_failure:
            found = event
        if event.is_of_the_stack and event.status == "UPDATE_IN_PROGRESS":
            break
    return found


def _newest_first(account: Account, stack_id: str) -> Iterator[Event]:
    pages = account.cloudformation.get_paginator("describe_stack_events")
    for page in pages.paginate(StackName=stack_id):
        yield from map(_event, page["StackEvents"])


def _event(raw: Mapping[str, Any]) -> Event:
    return Event(
        id=raw["EventId"],
        at=raw["Timestamp"],
        status=raw.get("ResourceStatus", ""),
        resource=raw.get("LogicalResourceId", ""),
        kind=raw.get("ResourceType", ""),
        reason=raw.get("ResourceStatusReason", ""),
        physical_id=raw.get("PhysicalResourceId", ""),
        stack_id=raw["StackId"],
    )
