"""Standard output, line by line: whatever becomes of it, no request fails."""

import io
import sys
from typing import Any


class Output:
    """Each line is one write of bytes, so that no encoding comes in between, and another process
    only on a pipe, beyond the 4,096 bytes that Linux takes at once. `lost` counts the lines that
    were not taken: by a closed pipe, a full disk, a closed file."""

    def __init__(self) -> None:
        self.lost = self.reported = 0
        self._is_cut = False
        self._stream: Any = None  # what standard output was when a line was last written
        self._raw: Any = None

    def write(self, line: bytes) -> bool:
        """The line, its newline included. Returns whether it was taken whole."""
        if self._is_cut:
            line = b"\n" + line  # not joined to what a full disk left of another
        try:
            if sys.stdout is not self._stream:
                self._stream = sys.stdout
                self._raw = getattr(getattr(self._stream, "buffer", None), "raw", None)
                self._flush = self._stream.flush
            self._flush()  # what others left in it comes first
            self._write(line)
        except (OSError, ValueError, AttributeError):  # ValueError: closed; AttributeError: None
            self.lost += 1
            return False
        return True

    def _write(self, line: bytes) -> None:
        if self._raw is None:  # a stand-in, such as a test's
            self._stream.write(line.decode())
            return
        left = line
        while left:
            taken = self._raw.write(left)
            if not taken:
                raise BlockingIOError("standard output is full")
            left = left[taken:]
            self._is_cut = bool(left)


class LogStream(io.TextIOBase):
    """What a logging handler writes to."""

    def write(self, text: str) -> int:
        output.write(text.encode(errors="backslashreplace"))
        return len(text)


output = Output()
