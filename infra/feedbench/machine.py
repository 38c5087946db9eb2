"""What a run was made on, and which cores its parts have."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "aws-lambda-powertools",
    "fastapi",
    "mangum",
    "mlflow",
    "numpy",
    "onnxruntime",
    "pydantic",
    "starlette",
    "torch",
    "uvicorn",
)
VERSION_TIMEOUT_S = 60


def description() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of the environment that the benchmark itself runs in."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


def versions_in(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """Of another environment; what it doesn't have is left out."""
    code = (
        "import sys, importlib.metadata as m\n"
        "for d in m.distributions():\n"
        "    if d.name.lower() in sys.argv[1:]: print(d.name.lower(), d.version)"
    )
    printed = subprocess.run(
        [python, "-c", code, *packages],
        capture_output=True,
        text=True,
        check=True,
        timeout=VERSION_TIMEOUT_S,
    ).stdout
    return dict(sorted(line.split() for line in printed.splitlines()))


def on_last_core(command: list[str | Path]) -> list[str | Path]:
    """The command kept to the last core, where there is more than one and a way to do it: a load
    generator then takes nothing from what it drives but that core."""
    cores = sorted(os.sched_getaffinity(0))
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(cores[-1]), *command] if taskset and len(cores) > 1 else command


def pinning() -> str:
    """How `on_last_core` does here, in words."""
    pinned = on_last_core([])
    return f"load generators on core {pinned[2]}" if pinned else "nothing is pinned"


def python_version(python: Path) -> str:
    code = "import platform; print(platform.python_version())"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
