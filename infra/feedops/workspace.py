"""Where things lie: the project's own folders, and what is written at run time, below `data/`."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FUNCTION = PROJECT / "function"
EVENTS = PROJECT / "events"

# Below the working directory, as MLflow's default tracking store is.
DATA = Path("data")
BUNDLES = DATA / "bundles"
LOGS = DATA / "logs"
PREDICTIONS = DATA / "predictions"
RUN = DATA / "run"
PREFIX = "process-"  # and its id: a folder of any other name is somebody else's


def is_checkout() -> bool:
    """A wheel has the packages alone: not the handler, the templates and the events."""
    return (FUNCTION / "handler.py").is_file()


@contextmanager
def scratch_folder(parent: Path = RUN) -> Iterator[Path]:
    """A folder of this process, gone at the end. What a killed one left is cleared away first."""
    for folder in parent.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX)
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
    folder = parent.absolute() / f"{PREFIX}{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):  # alive, and another user's
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):  # the latter is the id of no process
            return False
    return True
