"""Starts the front, runs Locust against it, and reports what its log says."""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markdown import Markdown

from feedbench import machine, traffic
from feedbench.load import verdict
from feedbench.server import front_server
from feedops.display import steps
from feedops.errors import OperationError, StartError
from feedops.local.processes import LOCALHOST, tail
from feedops.workspace import DATA, PROJECT, scratch_folder

LOCUST = PROJECT / ".venv-load" / "bin" / "locust"
DIRECTORY = DATA / "load"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
BODIES = 64
LONGEST_WAIT_S = 0.5  # then it is a 429: Lambda itself doesn't wait at all


class LoadOptions(NamedTuple):
    """With a `web_port` there is no plan: the page says how many users."""

    bundle: Path
    url: str
    environments: int
    seconds: int
    web_port: int


def run(options: LoadOptions, console: Console) -> None:
    """Raises OperationError where Locust is missing, or where the load found something wrong."""
    if not LOCUST.exists():
        raise OperationError(
            "Locust has an environment of its own, .venv-load: `make load` installs it"
        )
    log, picture, numbers = (DIRECTORY / n for n in ("requests.jsonl", "load.png", "verdict.json"))
    with scratch_folder(DIRECTORY / "run") as scratch, ExitStack() as stack:
        url, wait_s = options.url, LONGEST_WAIT_S
        if not url:
            server = front_server(
                scratch, options.bundle, environments=options.environments, longest_wait_s=wait_s
            )
            with steps(console, "Starting the local Lambda"):
                url = stack.enter_context(server)
        if options.web_port:
            console.print(f"http://{LOCALHOST}:{options.web_port} until Ctrl-C")
        with steps(console, "Load"):
            _locust(options, url, log.absolute(), scratch)
    frame = verdict.read(log)
    if options.web_port or frame.empty:
        return
    result = verdict.verdict(frame)
    verdict.draw(frame, picture)
    numbers.write_text(json.dumps(result, indent=1) + "\n")
    console.print(Markdown(verdict.table(result)))
    console.print(f"{picture}, {numbers}", highlight=False)
    if problems := list(verdict.problems(result)):
        raise OperationError("\n".join(["the load found:", *problems]))


def _locust(options: LoadOptions, url: str, log: Path, scratch: Path) -> None:
    bodies, output = scratch / "bodies.json", scratch / "locust.log"
    by_size = {items: traffic.requests(options.bundle, items, BODIES) for items in traffic.SIZES}
    bodies.write_text(json.dumps(by_size))
    variables = {"BODIES": str(bodies), "LOG": str(log), "STEADY_S": str(options.seconds)}
    environ = {"PATH": os.defpath, "HOME": str(scratch), **variables}
    line: list[str | Path] = [LOCUST, "-f", LOCUSTFILE, "--host", url, "--skip-log-setup"]
    if options.web_port:
        line += ["--web-host", LOCALHOST, "--web-port", str(options.web_port)]
    else:
        line += ["--headless", "--only-summary"]
        environ["PLAN"] = "1"
    with output.open("wb") as file:
        done = subprocess.run(
            machine.on_last_core(line), env=environ, stdout=file, stderr=file, check=False
        )
    if done.returncode not in (0, 1):  # 1: some requests failed, which is for the verdict to judge
        raise StartError(f"locust ended with exit code {done.returncode}; {tail(output)}")
