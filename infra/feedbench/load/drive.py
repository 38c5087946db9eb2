"""Starts the front, lets locust at it, and says what came of it."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from feedbench import machine, traffic
from feedbench.front_load import front_server
from feedbench.load import analysis, picture
from feedbench.load.analysis import Verdict
from feedops.display import steps
from feedops.errors import OperationError, StartError
from feedops.local.processes import LOCALHOST, Process, tail
from feedops.workspace import DATA, PROJECT, scratch_folder

LOCUST = PROJECT / ".venv-load" / "bin" / "locust"
FOLDER = DATA / "load"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SIZES = (5, 50, 100)  # items
BODIES = 64
LONGEST_WAIT_S = 0.5  # then it is a 429: Lambda itself doesn't wait at all
RECOVERY_BAR_S = 5.0
P99_BAR_MS = 25.0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """With a `web_port` there is no plan: the page says how many users."""

    bundle: Path
    url: str = ""
    environments: int = 2
    steady_s: int = 60
    web_port: int = 0


def run(options: LoadOptions, console: Console) -> None:
    """Raises OperationError where locust is missing, or where the load found something wrong."""
    if not LOCUST.exists():
        raise OperationError(
            "Locust has an environment of its own, .venv-load: `make load` installs it"
        )
    log = FOLDER / "requests.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(FOLDER / "run") as scratch:
        asyncio.run(_load(options, log.absolute(), scratch, console))
    requests = analysis.read(log)
    if options.web_port or not requests:
        return
    found = analysis.verdict(requests)
    picture.draw(requests, FOLDER / "load.png")
    (FOLDER / "verdict.json").write_text(json.dumps(found.to_json(), indent=1) + "\n")
    show(found, console)
    console.print(f"{FOLDER / 'load.png'}, {FOLDER / 'verdict.json'}", highlight=False)
    if problems := wrong_with(found):
        raise OperationError("\n".join(["the load found:", *problems]))


def wrong_with(found: Verdict) -> list[str]:
    """In words; empty where all is as it should be."""
    problems = [
        f"{phase.errors} errors other than 429 in the phase {phase.name}"
        for phase in found.phases
        if phase.errors
    ]
    for phase in found.phases:
        if phase.name == analysis.STEADY and phase.throttled:
            problems += [f"{phase.throttled} requests were throttled at a steady load"]
    overloaded = [phase for phase in found.phases if phase.name == analysis.OVERLOAD]
    if overloaded and not any(phase.throttled for phase in overloaded):
        problems.append("the overload was not throttled")
    if found.recovery_s > RECOVERY_BAR_S:
        problems.append(f"recovery took {found.recovery_s:.1f} s, over {RECOVERY_BAR_S:g} s")
    return problems


def show(found: Verdict, console: Console) -> None:
    table = Table(title="Load")
    for heading in ("phase", "seconds", "requests", "good/s", "p50 ms", "p99 ms", "429", "errors"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase in found.phases:
        table.add_row(
            phase.name,
            *(f"{phase.seconds:g}", f"{phase.requests:,}", f"{phase.good_per_s:g}"),
            *(f"{phase.p50_ms:g}", f"{phase.p99_ms:g}", str(phase.throttled), str(phase.errors)),
        )
    console.print(table)
    console.print(
        f"saturated at {found.saturation_per_s:.0f}/s; "
        f"{found.recovery_s:.1f} s from overload to no refusal"
    )


async def _load(options: LoadOptions, log: Path, scratch: Path, console: Console) -> None:
    if options.url:
        await _locust(options, options.url, log, scratch, console)
        return
    with steps(console, "Starting the local Lambda"):
        server = front_server(
            scratch,
            options.bundle.absolute(),
            environments=options.environments,
            longest_wait_s=LONGEST_WAIT_S,
        )
        port = await server.__aenter__()
    try:
        await _locust(options, f"http://{LOCALHOST}:{port}", log, scratch, console)
    finally:
        await server.__aexit__(None, None, None)


async def _locust(
    options: LoadOptions, url: str, log: Path, scratch: Path, console: Console
) -> None:
    bodies = scratch / "bodies.json"
    by_size = {items: traffic.requests(options.bundle, items, BODIES) for items in SIZES}
    bodies.write_text(json.dumps(by_size))
    web = ["--web-host", LOCALHOST, "--web-port", str(options.web_port)]
    environ = {
        "PATH": os.defpath,
        "HOME": str(scratch),
        "BODIES": str(bodies),
        "LOG": str(log),
        "STEADY_S": str(options.steady_s),
        "PLAN": "" if options.web_port else "1",
    }
    command: list[str | Path] = [
        *(LOCUST, "--locustfile", LOCUSTFILE, "--host", url, "--skip-log-setup"),
        *(web if options.web_port else ["--headless", "--only-summary"]),
    ]
    process = await Process.start(
        "locust", machine.on_last_core(command), scratch / "locust.log", environ
    )
    try:
        if options.web_port:
            console.print(f"http://{LOCALHOST}:{options.web_port} until Ctrl-C")
        with steps(console, "Load"):
            code = await process.wait()
    finally:
        await process.stop()
    if code not in (0, 1):  # 1: some requests failed, which is for us to judge
        raise StartError(f"locust ended with exit code {code}; {tail(process.log)}")
