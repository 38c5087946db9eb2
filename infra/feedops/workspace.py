"""The project's directories, and those below `data/` that are written at run time."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FUNCTION = PROJECT / "function"
EVENTS = PROJECT / "events"

# In the working directory, as MLflow's default tracking store.
DATA = Path("data")
BUNDLES = DATA / "bundles"
LOGS = DATA / "logs"
PREDICTIONS = DATA / "predictions"
RUN = DATA / "run"
PREFIX = "process-"  # then the process id; a directory with any other name is not ours


def is_checkout() -> bool:
    """A wheel has only the packages, without the handler, the templates and the events."""
    return (FUNCTION / "handler.py").is_file()


@contextmanager
def scratch_directory(parent: Path = RUN) -> Iterator[Path]:
    """A directory of this process, deleted at the end. First deletes those of dead processes."""
    for directory in parent.glob(f"{PREFIX}*"):
        pid = directory.name.removeprefix(PREFIX)
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(directory, ignore_errors=True)
    directory = parent.absolute() / f"{PREFIX}{os.getpid()}"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):  # alive, but another user's
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):  # the latter: no process has such an id
            return False
    return True
