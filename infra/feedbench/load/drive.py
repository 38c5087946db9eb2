"""Starts the front, runs Locust against it, and reports what its log says."""

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from pandas import DataFrame
from rich.console import Console
from rich.table import Table

from feedbench import machine, traffic
from feedbench.front_server import front_server
from feedbench.load import verdict
from feedops.display import steps
from feedops.errors import OperationError, StartError
from feedops.local.processes import LOCALHOST, Process, tail
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
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    log = (DIRECTORY / "requests.jsonl").absolute()
    with scratch_folder(DIRECTORY / "run") as scratch:
        asyncio.run(_load(options, log, scratch, console))
    frame = verdict.read(log)
    if not options.web_port and len(frame):
        _report(frame, console)


async def _load(options: LoadOptions, log: Path, scratch: Path, console: Console) -> None:
    bundle, environments = options.bundle.absolute(), options.environments
    async with AsyncExitStack() as stack:
        url = options.url
        if not url:
            server = front_server(
                scratch, bundle, environments=environments, longest_wait_s=LONGEST_WAIT_S
            )
            with steps(console, "Starting the local Lambda"):
                url = f"http://{LOCALHOST}:{await stack.enter_async_context(server)}"
        if options.web_port:
            console.print(f"http://{LOCALHOST}:{options.web_port} until Ctrl-C")
        with steps(console, "Load"):
            await _locust(options, url, log, scratch)


async def _locust(options: LoadOptions, url: str, log: Path, scratch: Path) -> None:
    bodies = scratch / "bodies.json"
    by_size = {items: traffic.requests(options.bundle, items, BODIES) for items in traffic.SIZES}
    bodies.write_text(json.dumps(by_size))
    environ = {
        "PATH": os.defpath,
        "HOME": str(scratch),
        "BODIES": str(bodies),
        "LOG": str(log),
        "STEADY_S": str(options.seconds),
        "PLAN": "" if options.web_port else "1",
    }
    web = ["--web-host", LOCALHOST, "--web-port", str(options.web_port)]
    line: list[str | Path] = [LOCUST, "--locustfile", LOCUSTFILE, "--host", url, "--skip-log-setup"]
    line += web if options.web_port else ["--headless", "--only-summary"]
    process = await Process.start(
        "locust", machine.on_last_core(line), scratch / "locust.log", environ
    )
    try:
        code = await process.wait()
    finally:
        await process.stop()
    if code not in (0, 1):  # 1: some requests failed, which is for the verdict to judge
        raise StartError(f"locust ended with exit code {code}; {tail(process.log)}")


def _report(frame: DataFrame, console: Console) -> None:
    found = verdict.verdict(frame)
    picture, numbers = DIRECTORY / "load.png", DIRECTORY / "verdict.json"
    verdict.draw(frame, picture)
    numbers.write_text(json.dumps(found, indent=1) + "\n")
    table = Table(title="Load")
    for heading in ("phase", "seconds", "requests", "good/s", "p50 ms", "p99 ms", "429", "errors"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for name, *values in (phase.values() for phase in found["phases"]):
        table.add_row(name, *(f"{value:,}" for value in values))
    console.print(table)
    console.print(
        f"saturated at {found['saturation_per_s']:.0f}/s; "
        f"{found['recovery_s']:.1f} s from overload to no refusal"
    )
    console.print(f"{picture}, {numbers}", highlight=False)
    if problems := list(verdict.problems(found)):
        raise OperationError("\n".join(["the load found:", *problems]))
