"""What a run was made on, and which cores its parts have."""

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

VERSIONS = """
import importlib.metadata, json, platform, sys
here = {"python": platform.python_version()}
here |= {each.name.lower(): each.version for each in importlib.metadata.distributions()}
versions = {name: here[name] for name in sys.argv[1:] if name in here}
print(json.dumps(versions))
"""


def description() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
    }


def versions(python: Path, *packages: str) -> dict[str, str]:
    """Of this Python, and of those packages that it has."""
    printed = subprocess.check_output([str(python), "-c", VERSIONS, *packages])
    return dict(json.loads(printed))


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
