"""Whole lines on a pipe that several processes write to, such as a server's workers.

Linux writes a line at once where the pipe has room for it, even past the 4,096 bytes that POSIX
promises. Otherwise it writes parts, between which another process may write, and a kill may cut
the line off. So a line waits until it has room, and a lock reserves that room. The lock belongs to
the process and is on the pipe itself: it ends with the process, however that ends.
"""

import fcntl
import os
import stat
from contextlib import suppress
from mmap import PAGESIZE
from termios import FIONREAD
from threading import Lock
from time import perf_counter, sleep

CAPACITY_BYTES = 1 << 20  # Linux's limit without privileges; 65,536 by default
MAX_WAIT_S = 5.0  # for a reader that doesn't read; then lines are lost, without a wait
PAUSE_S = 0.0001  # a line is written in less


class SharedPipe:
    """Raises OSError where `fd` is no pipe, or one that can't be locked."""

    def __init__(self, fd: int) -> None:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise OSError("not a pipe")
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < CAPACITY_BYTES:
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CAPACITY_BYTES)
        self._fd = fd
        self._pages: int = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // PAGESIZE
        self._unread = bytearray(4)  # the number of bytes in the pipe, as Linux writes it
        self._max_wait_s = MAX_WAIT_S
        self._threads = Lock()  # the lock on the pipe is the same for all threads of a process
        if self._lock():
            self._unlock()

    def acquire(self, size: int) -> None:
        """Reserves room for `size` bytes until `release`. Raises BlockingIOError."""
        if not self._threads.acquire(timeout=MAX_WAIT_S):
            raise BlockingIOError("another thread is writing to standard output")
        try:
            if not self._reserve(size):
                self._wait(size)
            elif not self._max_wait_s:
                self._max_wait_s = MAX_WAIT_S  # the pipe is read again
        except BaseException:
            self._threads.release()
            raise

    def release(self) -> None:
        self._unlock()
        self._threads.release()

    def _wait(self, size: int) -> None:
        end_s = perf_counter() + self._max_wait_s
        while perf_counter() < end_s:
            sleep(PAUSE_S)
            if self._reserve(size):
                return
        self._max_wait_s = 0.0
        # A stopped process may hold the lock; a line that has room is whole without it.
        if not self._fits(size):
            raise BlockingIOError("standard output is full")

    def _reserve(self, size: int) -> bool:
        """Takes the lock where there is room."""
        if not self._lock():
            return False
        if self._fits(size):
            return True
        self._unlock()
        return False

    def _fits(self, size: int) -> bool:
        """Whether the pipe has free pages for `size` bytes, however its unread bytes are spread:
        two neighbouring pages always hold more than one page of bytes. A line that is larger than
        the pipe needs an empty one."""
        fcntl.ioctl(self._fd, FIONREAD, self._unread)
        unread = int.from_bytes(self._unread, "little")
        pages = 2 * (unread // PAGESIZE) + 2 - (-size // PAGESIZE)
        return pages <= self._pages or not unread

    def _lock(self) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
