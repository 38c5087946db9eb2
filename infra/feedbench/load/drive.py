"""Starts the front, runs Locust against it, and reports what its statistics say."""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from feedbench import machine, traffic
from feedbench.load import verdict
from feedops.display import steps
from feedops.errors import OperationError, StartError
from feedops.local.background import front_server
from feedops.workspace import DATA, PROJECT, scratch_directory

LOCUST = PROJECT / ".venv-load" / "bin" / "locust"
DIRECTORY = DATA / "load"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
BODIES = 64
LONGEST_WAIT_S = 0.5  # then it is a 429: Lambda itself doesn't wait at all


def run(bundle: Path, url: str, environments: int, seconds: int, console: Console) -> None:
    """Raises OperationError where Locust is missing, or where the load found something wrong."""
    if not LOCUST.exists():
        raise OperationError(
            "Locust has an environment of its own, .venv-load: `make load` installs it"
        )
    with scratch_directory(DIRECTORY / "run") as scratch, ExitStack() as stack:
        if not url:
            server = front_server(
                scratch, bundle, environments=environments, longest_wait_s=LONGEST_WAIT_S
            )
            with steps(console, "Starting the local Lambda"):
                url = stack.enter_context(server)
        bodies = scratch / "bodies.json"
        sizes = {items: traffic.requests(bundle, items, BODIES) for items in traffic.SIZES}
        bodies.write_text(json.dumps(sizes))
        with steps(console, "Load"):
            stats = _locust(url, {"BODIES": str(bodies), "STEADY_S": str(seconds)})
    table = Table(*verdict.COLUMNS)
    for phase in verdict.phases(stats).itertuples(index=False):
        table.add_row(*map(str, phase))
    console.print(table)
    saturation, recovery = verdict.saturation_per_s(stats), verdict.recovery_s(stats)
    console.print(f"Saturated at {saturation:.0f}/s; {recovery:.1f} s from overload to no refusal.")
    console.print(f"{DIRECTORY / 'load.html'}", highlight=False)
    if problems := list(verdict.problems(stats)):
        raise OperationError("\n".join(["the load found:", *problems]))


def _locust(url: str, variables: dict[str, str]) -> verdict.Stats:
    line: list[str | Path] = [LOCUST, "-f", LOCUSTFILE, "--host", url, "--headless", "--json"]
    line += ["--html", (DIRECTORY / "load.html").absolute(), "--exit-code-on-error", "0"]
    environ = {"PATH": os.defpath, "HOME": str(DIRECTORY.absolute()), **variables}
    command = machine.on_last_core(line)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(f"locust ended with exit code {done.returncode}\n{done.stderr[-2_000:]}")
    return {each["name"]: each for each in json.loads(done.stdout)}
