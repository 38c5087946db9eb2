"""Standard output, line by line: whatever becomes of it, no request fails."""

import io
import sys
from typing import TYPE_CHECKING, Any

from feedrank.settings import is_lambda

if TYPE_CHECKING:
    from feedrank.telemetry.pipe import SharedPipe


class Output:
    """Each line is one write of bytes, so that neither an encoding nor another process comes in
    between. `lost` counts the lines that were not taken: by a closed pipe, one that nobody reads, a
    full disk, a closed file."""

    def __init__(self) -> None:
        self.lost = self.reported = 0
        self._is_cut = False
        self._stream: Any = None  # what standard output was when a line was last written
        self._raw: Any = None
        self._pipe: SharedPipe | None = None

    def write(self, line: bytes) -> bool:
        """The line, its newline included. Returns whether it was taken whole."""
        if self._is_cut:
            line = b"\n" + line  # not joined to what a full disk left of another
        try:
            if sys.stdout is not self._stream:
                self._attach(sys.stdout)
            self._flush()  # what others left in it comes first
            self._write(line)
        except (OSError, ValueError, AttributeError):  # ValueError: closed; AttributeError: None
            self.lost += 1
            return False
        return True

    def _attach(self, stream: Any) -> None:  # noqa: ANN401 whatever stands in for it
        self._stream = stream
        self._raw = getattr(getattr(stream, "buffer", None), "raw", None)
        self._flush = stream.flush
        self._pipe = _shared_pipe(self._raw)

    def _write(self, line: bytes) -> None:
        if self._raw is None:  # a stand-in, such as a test's
            self._stream.write(line.decode())
        elif self._pipe is None:
            self._put(line)
        else:
            self._pipe.acquire(len(line))
            try:
                self._put(line)
            finally:
                self._pipe.release()

    def _put(self, line: bytes) -> None:
        left = line
        while left:
            taken = self._raw.write(left)
            if not taken:
                raise BlockingIOError("standard output is full")
            left = left[taken:]
            self._is_cut = bool(left)


def _shared_pipe(raw: Any) -> "SharedPipe | None":  # noqa: ANN401
    """On Lambda a process has standard output to itself."""
    if is_lambda() or sys.platform != "linux":
        return None
    from feedrank.telemetry.pipe import SharedPipe

    try:
        return SharedPipe(raw.fileno())
    except (OSError, AttributeError):  # no pipe, or no file at all
        return None


class LogStream(io.TextIOBase):
    """What a logging handler writes to."""

    def write(self, text: str) -> int:
        output.write(text.encode(errors="backslashreplace"))
        return len(text)


output = Output()
