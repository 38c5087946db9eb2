"""What a run was made on, which cores its parts have, and the processes that it starts."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from feedops.errors import OperationError
from feedops.local.processes import LINES_QUOTED


def description() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)  # which arm64 hasn't
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
    }


def versions(packages: Sequence[str], environment: str | Path = sys.prefix) -> dict[str, str]:
    """Of those packages that a virtual environment has."""
    places = map(str, Path(environment).glob("lib/python*/site-packages"))
    found = {each.name.lower(): each.version for each in distributions(path=[*places])}
    return {name: found[name] for name in packages if name in found}


def run(command: Sequence[str | Path], **options: Any) -> "subprocess.CompletedProcess[bytes]":  # noqa: ANN401
    """Raises OperationError with the end of its standard error, where it fails."""
    options |= {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    done: subprocess.CompletedProcess[bytes] = subprocess.run(command, check=False, **options)
    if done.returncode:
        last = done.stderr.decode(errors="replace").splitlines()[-LINES_QUOTED:]
        raise OperationError("\n".join([f"failed: {' '.join(map(str, command[:6]))}", *last]))
    return done


def on_last_core(command: list[str | Path]) -> list[str | Path]:
    """The command kept to the last core, where there are several and a way to do it: a load
    generator then takes nothing but that core from what it drives."""
    cores = sorted(os.sched_getaffinity(0))
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(cores[-1]), *command] if taskset and len(cores) > 1 else command


def pinning() -> str:
    """What `on_last_core` does here, in words."""
    pinned = on_last_core([])
    return f"load generators on core {pinned[2]}" if pinned else "nothing is pinned"
