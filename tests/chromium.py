"""Chromium, driven by the DevTools protocol over a pipe: no port, no driver, no package.

https://chromedevtools.github.io/devtools-protocol/
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONGEST_WAIT_S = 60.0  # for one reply of a browser that hangs
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--mute-audio", "--password-store=basic"),
)
# The browser reads commands from file descriptor 3 and writes to 4.
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
FIRST_FREE_FD = 10  # above the two that the browser has
WAIT = """
new Promise(resolve => {
  const observer = new MutationObserver(look);
  function look() {
    const value = (%s);
    if (value) { observer.disconnect(); resolve(value); }
  }
  observer.observe(
    document, { subtree: true, childList: true, attributes: true, characterData: true });
  look();
})
"""


def executable() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One process. Replies and events of all pages come through one pipe."""

    def __init__(self, writing: int, reading: int) -> None:
        self._writing, self._reading = writing, reading
        self._rest = b""
        self._commands = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """The command's result. Events that come before it are kept."""
        self._commands += 1
        command = {"id": self._commands, "method": method, "params": params}
        if session:
            command["sessionId"] = session
        os.write(self._writing, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._commands:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def wait_for_event(self, session: str, method: str) -> dict[str, Any]:
        """The first such event of the session, which is then taken from `events`."""
        while True:
            for event in self.events:
                if (event.get("sessionId"), event["method"]) == (session, method):
                    self.events.remove(event)
                    return event
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        deadline_s = monotonic() + LONGEST_WAIT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, deadline_s - monotonic()))
            assert ready, "Chromium does not reply"
            chunk = os.read(self._reading, 1 << 20)
            assert chunk, "Chromium ended"
            self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message


class Page:
    """One tab, with a profile of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._context = browser.send("Target.createBrowserContext")["browserContextId"]
        target = browser.send(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        attached = browser.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **params)

    def open(self, url: str) -> None:
        """Returns once the page and its scripts are loaded."""
        self.send("Page.navigate", url=url)
        self._browser.wait_for_event(self._session, "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The expression's value as JSON holds it; a promise's once it is fulfilled."""
        reply = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The expression's value as soon as a change of the document makes it true."""
        return self.evaluate(WAIT % expression)

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def requested(self) -> list[str]:
        """Every URL that the page has asked for."""
        return [e["params"]["request"]["url"] for e in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """What a developer would see in red: exceptions, errors of the console, refused content."""
        thrown = [
            str(event["params"]["exceptionDetails"])
            for event in self._events("Runtime.exceptionThrown")
        ]
        logged = [event["params"]["entry"] for event in self._events("Log.entryAdded")]
        return thrown + [entry["text"] for entry in logged if entry["level"] == "error"]

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.evaluate("0")  # whatever came before this reply is read by then
        return [
            event
            for event in self._browser.events
            if (event.get("sessionId"), event["method"]) == (self._session, method)
        ]

    def close(self) -> None:
        self._browser.send("Target.disposeBrowserContext", browserContextId=self._context)
        self._browser.events.clear()


@contextmanager
def started(program: str, profile: Path) -> Iterator[Browser]:
    """The sandbox needs another user than root."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    commands, replies = _pipe(), _pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", LAUNCH, str(commands[0]), str(replies[1])),
            *(program, *FLAGS, *sandbox, f"--user-data-dir={profile}"),
        ],
        pass_fds=(commands[0], replies[1]),
        env={"PATH": os.environ["PATH"], "HOME": str(profile)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands[0])
    os.close(replies[1])
    try:
        yield Browser(commands[1], replies[0])
    finally:
        os.close(commands[1])  # at which the browser ends
        os.close(replies[0])
        try:
            process.wait(LONGEST_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pipe() -> tuple[int, int]:
    """Its reading and its writing end."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
