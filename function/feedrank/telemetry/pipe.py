"""Whole lines on a pipe that several processes write to, as a server's workers do.

Linux takes at once what there is room for, also past the 4,096 bytes that it promises to. Only what
there is no room for goes in by parts, between which another's line may come, and a kill may end it.
So a line waits until it has room, and a lock keeps others from taking that. The lock is on the pipe
itself, and is the process's: when it ends, however it does, the lock is gone.
"""

import fcntl
import os
import stat
from contextlib import suppress
from mmap import PAGESIZE
from termios import FIONREAD
from threading import Lock
from time import perf_counter, sleep

ROOM_BYTES = 1 << 20  # the most that Linux gives everybody; 65,536 at first
LONGEST_WAIT_S = 5.0  # for a reader that takes nothing; then lines are lost, and nobody waits
PAUSE_S = 0.0001  # a line is written in less


class SharedPipe:
    """Raises OSError where `fd` is no pipe, or one that can't be locked."""

    def __init__(self, fd: int) -> None:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise OSError("not a pipe")
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < ROOM_BYTES:
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, ROOM_BYTES)
        self._fd = fd
        self._pages: int = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // PAGESIZE
        self._waiting = bytearray(4)  # bytes in the pipe, as Linux writes the number
        self._longest_s = LONGEST_WAIT_S
        self._threads = Lock()  # the other lock is the same for all of a process's
        if self._lock():
            self._unlock()

    def acquire(self, size: int) -> None:
        """Room for so many bytes, until it is released. Raises BlockingIOError."""
        if not self._threads.acquire(timeout=LONGEST_WAIT_S):
            raise BlockingIOError("another thread is writing to standard output")
        try:
            if not self._has_room(size):
                self._wait(size)
            elif not self._longest_s:
                self._longest_s = LONGEST_WAIT_S  # it is read again
        except BaseException:
            self._threads.release()
            raise

    def release(self) -> None:
        self._unlock()
        self._threads.release()

    def _wait(self, size: int) -> None:
        end_s = perf_counter() + self._longest_s
        while perf_counter() < end_s:
            sleep(PAUSE_S)
            if self._has_room(size):
                return
        self._longest_s = 0.0
        # A process that was stopped may have the lock; a line that has room is whole without it.
        if not self._fits(size):
            raise BlockingIOError("standard output is full")

    def _has_room(self, size: int) -> bool:
        """Whether there is, and it is kept."""
        if not self._lock():
            return False
        if self._fits(size):
            return True
        self._unlock()
        return False

    def _fits(self, size: int) -> bool:
        """Two pages beside each other have more bytes than one can hold, or were one. A line that
        is larger than the pipe has it to itself."""
        fcntl.ioctl(self._fd, FIONREAD, self._waiting)
        waiting = int.from_bytes(self._waiting, "little")
        pages = 2 * (waiting // PAGESIZE) + 2 - (-size // PAGESIZE)
        return pages <= self._pages or not waiting

    def _lock(self) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
