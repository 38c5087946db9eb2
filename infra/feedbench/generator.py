"""HTTP load by wrk, a process of its own on the last core, which costs next to nothing itself:
as many requests as a server takes on a few connections, or users who wait between theirs."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from feedbench.machine import on_last_core, run
from feedops.errors import OperationError

CONNECTIONS = 8
GRACE_S = 30.0
SCRIPT = Path(__file__).with_name("requests.lua")


def requests_per_s(url: str, bodies: Path, seconds: float) -> float:
    """As many as the server takes. Raises OperationError where a request failed."""
    load = drive(url, bodies, seconds, CONNECTIONS)
    if load["errors"]:
        raise OperationError(f"{load['errors']} of {load['requests']} requests to {url} failed")
    return float(load["requests"] / load["seconds"])


def drive(url: str, bodies: Path, seconds: float, users: int, think_ms: int = 0) -> dict[str, Any]:
    """What the script prints. `bodies` is a file, one body a line; a user has a connection, and
    thinks between requests for half as long to half as long again. Raises OperationError where wrk
    is missing or fails."""
    wrk = shutil.which("wrk")
    if not wrk:
        raise OperationError("wrk is not installed: apt-get install wrk, or brew install wrk")
    options = ["-t1", f"-c{users}", f"-d{max(1, round(seconds))}s", "-s", str(SCRIPT), url]
    environ = {**os.environ, "BODIES": str(bodies), "THINK_MS": str(think_ms)}
    files = {"stdout": subprocess.PIPE, "env": environ}
    done = run(on_last_core([wrk, *options]), timeout=seconds + GRACE_S, **files)
    return dict(json.loads(done.stdout.splitlines()[-1]))
