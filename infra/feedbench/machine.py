"""What a run was made on, and which cores its parts have."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

VERSION_TIMEOUT_S = 60
VERSIONS = """
import importlib.metadata, json, platform, sys
here = {each.name.lower(): each.version for each in importlib.metadata.distributions()}
versions = {name: here[name] for name in sys.argv[1:] if name in here}
print(json.dumps({"python": platform.python_version(), **versions}))
"""


def description() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def versions(python: Path, *packages: str) -> dict[str, str]:
    """Of this Python, and of those packages that it has."""
    command: list[str | Path] = [python, "-c", VERSIONS, *packages]
    printed: dict[str, str] = json.loads(
        subprocess.check_output(command, timeout=VERSION_TIMEOUT_S)
    )
    return printed


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
