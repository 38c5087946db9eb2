"""Shows an update of a stack as it goes, and says how it ended."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from feedops.display import steps
from feedops.errors import OperationError
from feedops.release import shift
from feedops.release.account import Account
from feedops.release.deployed import Deployed
from feedops.release.events import DONE, ROLLED_BACK, Event, Events

POLL_S = 5.0
SHOWN = ("_COMPLETE", "_FAILED")  # of events of resources; those of the stack are all shown
EXISTS = ("already exists", "A version for this Lambda function exists")


@dataclass
class Update:
    """One update of `stack`, followed from before it starts."""

    account: Account
    stack: Deployed
    console: Console
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._events = Events(self.account, self.stack.id)
        self._shifts = shift.Shifts(self.account, self.stack, self._events.start)

    def wait(self) -> None:
        """Returns when the update is done. Raises OperationError with the reason of a roll-back."""
        with steps(self.console, f"Updating {self.stack.name}"):
            while True:
                for event in self._events.new():
                    self._show(event)
                self._show_shift()
                if self._events.end:
                    break
                time.sleep(POLL_S)
        if self._events.end not in DONE:
            raise OperationError(self._outcome())

    def wait_for_rollback(self) -> None:
        """Returns when it was rolled back, as it was told to. Raises OperationError otherwise."""
        try:
            self.wait()
        except OperationError:
            if self._events.end in ROLLED_BACK:
                return
            raise
        raise OperationError(
            f"{self.stack.name}: the update was complete before it could be stopped\n"
            f"go back: feedrank rollback --stack {self.stack.name}"
        )

    def _show(self, event: Event) -> None:
        if event.is_of_the_stack or event.status.endswith(SHOWN):
            text = f"{event.at:%H:%M:%S}  {event.resource:<20}  {event.status}"
            reason = f": {event.reason}" if event.reason else ""
            self._print(f"{text}{reason}", "red" if event.status.endswith("_FAILED") else "")

    def _show_shift(self) -> None:
        current = self._shifts.first()
        if current is None:
            return
        for line in current.lines():
            self._say(line)
        if current.status not in shift.FINISHED:
            self._show_alarms(shift.alarms(self.account, self.stack, "release-"))

    def _show_alarms(self, states: Mapping[str, tuple[str, str]]) -> None:
        for name, (state, reason) in states.items():
            if state == "ALARM":
                self._say(f"alarm {name}: {reason}", key=name)  # the reason has times, which change

    def _say(self, line: str, key: str = "") -> None:
        """Once, however often it is found."""
        if (key or line) not in self._said:
            self._said.add(key or line)
            self._print(f"          {line}", "bold")

    def _print(self, text: str, style: str) -> None:
        self.console.print(Text(text, style), soft_wrap=True)

    def _outcome(self) -> str:
        name, end = self.stack.name, self._events.end
        lines = [f"{name}: {self._headline(end)}"]
        lines += filter(None, [self._cause()])
        if end.endswith("ROLLBACK_FAILED"):
            lines.append(
                f"continue it: aws cloudformation continue-update-rollback --stack-name {name}"
            )
        return "\n".join(lines)

    @staticmethod
    def _headline(end: str) -> str:
        if end in ROLLED_BACK:
            return "the update was rolled back"
        return f"the update ended with {end}"

    def _cause(self) -> str:
        """CodeDeploy's reason and the hook's, else that of the resource that failed."""
        current = self._shifts.first()
        if current and current.hook == "Failed":
            reason = shift.refusal_by_hook(self.account, self.stack, self._events.start)
            return f"the hook refuses the new version: {reason or current.error}"
        if current and current.error:
            return current.error
        failure = self._events.first_failure()
        if failure is None:
            return ""
        text = f"{failure.resource}: {failure.reason}"
        if any(words in failure.reason for words in EXISTS):
            text += (
                "\na version of this bundle is left from an earlier release that was rolled back: "
                "delete it, then release again\n"
                f"feedrank status --stack {self.stack.name} lists the versions; "
                f"aws lambda delete-function --function-name {self.stack.name} --qualifier <number>"
            )
        return text
