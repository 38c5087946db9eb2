"""Starts a probe: a script of `probes/`, in a fresh process, as Lambda would have it.

It gets the function's environment variables and nothing of the shell's. A probe prints what the
function prints, unbuffered as the runtime client has it; what it found it writes to a file.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedbench.plan import Plan
from feedbench.target import Target
from feedops.errors import OperationError
from feedops.workspace import PROJECT

PROBES = Path(__file__).with_name("probes")
INFRA = PROJECT / "infra"
TIMEOUT_S = 900
LINES_QUOTED = 12


def environment(
    plan: Plan, target: Target, variables: dict[str, str] | None = None, *paths: Path
) -> dict[str, str]:
    """The function's. `paths` are imported from beside the function and its layers."""
    temporary = plan.scratch / "tmp"
    temporary.mkdir(exist_ok=True)
    environ = target.function(plan.variables | (variables or {})).lambda_environ(temporary)
    environ["ORT_DISABLE_TELEMETRY"] = "1"  # some import it before feedrank does
    environ["PYTHONPATH"] = os.pathsep.join(map(str, (environ["PYTHONPATH"], *paths)))
    return environ


def command(
    target: Target, script: str, *arguments: str | Path, isolated: bool = False
) -> list[str]:
    """`isolated`: the script's own folder is no place to import from."""
    options = ["-u", "-P"] if isolated else ["-u"]
    return [str(target.python), *options, str(PROBES / script), *map(str, arguments)]


def run_probe(
    plan: Plan,
    target: Target,
    script: str,
    options: dict[str, Any],
    variables: dict[str, str] | None = None,
    *,
    keep_output: bool = True,
) -> Any:  # noqa: ANN401 the probe's JSON
    """What the probe found. Its standard output is a file, or else nothing at all."""
    result = plan.scratch / "result.json"
    output = plan.scratch / "output.log" if keep_output else Path(os.devnull)
    line = command(target, script, result, json.dumps(options))
    run_line(line, environment(plan, target, variables, INFRA), output)
    return json.loads(result.read_bytes())


def time_to_finish(plan: Plan, line: Sequence[str], environ: dict[str, str], result: Path) -> float:
    """Milliseconds from the spawn to the moment that the probe noted; its own end is not in it."""
    started_ns = time.monotonic_ns()
    run_line(line, environ, plan.scratch / "output.log")
    return (int(result.read_text()) - started_ns) / 1e6


def run_line(line: Sequence[str], environ: dict[str, str], output: Path) -> None:
    """Raises OperationError with the end of what it said."""
    with output.open("wb") as file:
        done = subprocess.run(
            line,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        name = next(Path(part).name for part in line if part.endswith(".py"))
        last = done.stderr.decode(errors="replace").splitlines()[-LINES_QUOTED:]
        raise OperationError("\n".join([f"{name} failed:", *last]))
