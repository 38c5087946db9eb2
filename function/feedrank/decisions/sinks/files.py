"""Decision records in daily files."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

LOCK_TRIES = 125
REPLACEMENTS = 3  # of a file, one after the other, while a record is written
LOCK_PAUSE_S = 0.002  # a record is written in less


class DailyFiles:
    """`predictions_YYYY-MM-DD.jsonl`, by the record's UTC day; several processes may append. The
    lock makes what a full disk left of a record this process's to take away again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, line: bytes, day: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(REPLACEMENTS):
            if self._appended(line, day):
                return
        raise OSError("the file is replaced again and again")

    def _appended(self, line: bytes, day: str) -> bool:
        """Not where an erasure put another file in the place of what is open."""
        with (self._folder / f"predictions_{day}.jsonl").open("a+b", buffering=0) as file:
            _lock(file)  # until it is closed
            if not os.fstat(file.fileno()).st_nlink:
                return False
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line  # whoever wrote last was killed, or had no lock
            if file.write(line) < len(line):
                file.truncate(size)
                raise OSError("only a part of the record was written")
        return True


def _lock(file: IO[bytes]) -> None:
    """Raises BlockingIOError, and the record is spilled, where somebody keeps it locked."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_PAUSE_S)
    raise BlockingIOError("another process keeps the file locked")
