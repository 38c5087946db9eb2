"""Starts the front, runs Locust against it, and reports what its log says."""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from feedbench import machine, traffic
from feedbench.load import verdict
from feedops.display import steps
from feedops.errors import OperationError, StartError
from feedops.local.background import front_server
from feedops.local.processes import tail
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
    log, page = ((DIRECTORY / name).absolute() for name in ("requests.jsonl", "load.html"))
    with scratch_directory(DIRECTORY / "run") as scratch, ExitStack() as stack:
        if not url:
            server = front_server(
                scratch, bundle, environments=environments, longest_wait_s=LONGEST_WAIT_S
            )
            with steps(console, "Starting the local Lambda"):
                url = stack.enter_context(server)
        bodies, output = scratch / "bodies.json", scratch / "locust.log"
        sizes = {items: traffic.requests(bundle, items, BODIES) for items in traffic.SIZES}
        bodies.write_text(json.dumps(sizes))
        environ = {"PATH": os.defpath, "HOME": str(scratch), "BODIES": str(bodies)}
        environ |= {"LOG": str(log), "STEADY_S": str(seconds)}
        line: list[str | Path] = [LOCUST, "-f", LOCUSTFILE, "--host", url, "--html", page]
        line += ["--headless", "--only-summary", "--skip-log-setup"]
        with steps(console, "Load"), output.open("wb") as file:
            command = machine.on_last_core(line)
            done = subprocess.run(command, env=environ, stdout=file, stderr=file, check=False)
        if done.returncode not in (0, 1):  # 1: some requests failed: for the verdict to judge
            raise StartError(f"locust ended with exit code {done.returncode}; {tail(output)}")
    result = verdict.verdict(verdict.read(log))
    console.print(Markdown(verdict.table(result)))
    console.print(f"{page}, {log}", highlight=False)
    if problems := list(verdict.problems(result)):
        raise OperationError("\n".join(["the load found:", *problems]))
