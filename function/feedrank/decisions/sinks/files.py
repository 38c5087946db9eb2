"""Decision records in daily files."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from feedrank.decisions.sinks import DecisionRecord, DecisionSink

LOCK_TRIES = 125
LOCK_PAUSE_S = 0.002  # a record is written in less
MAX_REPLACEMENTS = 3  # of a file, by erasures, while one record is written


class DailyFiles(DecisionSink):
    """Appends to `predictions_YYYY-MM-DD.jsonl`, by the record's UTC day. Several processes may
    append to one file: its lock lets each remove the part of a record that a full disk has taken.
    """

    max_writes = 1  # more would only wait for each other's lock
    min_write_s = 0.0  # a local file takes 0.1 ms

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, record: DecisionRecord) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"predictions_{record.day}.jsonl"
        for _ in range(MAX_REPLACEMENTS):
            if _append(path, record.line):
                return
        raise OSError("the file is replaced again and again")


def _append(path: Path, line: bytes) -> bool:
    """False where an erasure replaced the file after it was opened."""
    with path.open("a+b", buffering=0) as file:
        _lock(file)  # until it is closed
        if not os.fstat(file.fileno()).st_nlink:
            return False
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            line = b"\n" + line  # the last writer was killed, or had no lock
        if file.write(line) < len(line):
            file.truncate(size)
            raise OSError("only a part of the record was written")
    return True


def _lock(file: IO[bytes]) -> None:
    """Raises BlockingIOError where another process doesn't release it."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_PAUSE_S)
    raise BlockingIOError("another process keeps the file locked")
