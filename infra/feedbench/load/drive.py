"""Starts the front, runs Locust against it, and reports what its statistics say."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from feedbench import traffic
from feedbench.machine import on_last_core
from feedops.display import print_whole, steps
from feedops.errors import OperationError, StartError
from feedops.local.background import front_server
from feedops.workspace import DATA, PROJECT, scratch_directory

LOCUST = PROJECT / ".venv-load" / "bin" / "locust"
DIRECTORY = DATA / "load"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
BODIES = 64
LONGEST_WAIT_S = 0.5  # then it is a 429: Lambda itself doesn't wait at all
REFUSED = ", 429"  # ends the name of what was refused in a phase
RECOVERY_BAR_S = 5.0
WINDOW_S = 3  # of the ramp, for its saturation

Stats = dict[str, dict[str, Any]]  # Locust's own, by name


def run(bundle: Path, url: str, seconds: int, console: Console) -> None:
    """Raises OperationError where Locust is missing, or where the load found something wrong."""
    if not LOCUST.exists():
        raise OperationError(
            "Locust has an environment of its own, .venv-load: `make load` installs it"
        )
    with scratch_directory(DIRECTORY / "run") as scratch, ExitStack() as stack:
        if not url:
            server = front_server(scratch, bundle, environments=2, longest_wait_s=LONGEST_WAIT_S)
            with steps(console, "Starting the local Lambda"):
                url = stack.enter_context(server)
        bodies = scratch / "bodies.json"
        sizes = {items: traffic.requests(bundle, items, BODIES) for items in traffic.SIZES}
        bodies.write_text(json.dumps(sizes))
        with steps(console, "Load"):
            stats = _locust(url, scratch / "stats.json", BODIES=str(bodies), STEADY_S=str(seconds))
    saturation, recovery = saturation_per_s(stats), recovery_s(stats)
    console.print(f"Saturated at {saturation:.0f}/s; {recovery:.1f} s from overload to no refusal.")
    print_whole(console, f"{DIRECTORY / 'load.html'}")
    if found := list(problems(stats)):
        raise OperationError("\n".join(["the load found:", *found]))


def _locust(url: str, stats: Path, **variables: str) -> Stats:
    line: list[str | Path] = [LOCUST, "-f", LOCUSTFILE, "--host", url, "--headless"]
    line += ["--html", (DIRECTORY / "load.html").absolute(), "--exit-code-on-error", "0"]
    command = on_last_core([*line, "--only-summary", "--loglevel", "ERROR"])
    environ = {"PATH": os.defpath, "HOME": str(DIRECTORY.absolute()), "STATS": str(stats)}
    if code := subprocess.run(command, env=environ | variables, check=False).returncode:
        raise StartError(f"locust ended with exit code {code}")
    return {each["name"]: each for each in json.loads(stats.read_bytes())}


def saturation_per_s(stats: Stats) -> float:
    """The best mean of responses that weren't refused, over three seconds on end."""
    served = [entry["num_reqs_per_sec"] for name, entry in stats.items() if REFUSED not in name]
    by_second = pd.DataFrame(served).sum().sort_index()
    return float(by_second.rolling(WINDOW_S, min_periods=1).mean().max())


def recovery_s(stats: Stats) -> float:
    """From the overload's end to the last refusal."""
    if not (refused := stats.get(f"recovery{REFUSED}")):
        return 0.0
    start_s = min(stats[name]["start_time"] for name in stats if name.startswith("recovery"))
    return float(refused["last_request_timestamp"] - start_s)


def problems(stats: Stats) -> Iterator[str]:
    """What is wrong with a load, in words."""
    for name, entry in stats.items():
        if errors := entry["num_failures"]:
            yield f"{errors} errors other than 429 in the phase {name}"
    if throttled := stats.get(f"steady{REFUSED}"):
        yield f"{throttled['num_requests']} requests were throttled at a steady load"
    if f"overload{REFUSED}" not in stats:
        yield "the overload was not throttled"
    if not (recovered_s := recovery_s(stats)) <= RECOVERY_BAR_S:
        yield f"recovery took {recovered_s:.1f} s, over {RECOVERY_BAR_S:g} s"
