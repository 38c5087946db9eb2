"""Standard output, line by line: no failure of it fails a request."""

import io
import sys
from typing import TYPE_CHECKING, Any, TextIO

from feedrank.settings import is_lambda

if TYPE_CHECKING:
    from feedrank.telemetry.pipe import SharedPipe


class Output:
    """Writes each line by one write of bytes, so that neither an encoding nor another process can
    split it. `lost` counts the lines that could not be written: to a closed pipe, one that nobody
    reads, a full disk, a closed file. `reported` of them are in a metric."""

    def __init__(self) -> None:
        self.lost = self.reported = 0
        self._is_cut = False
        self._stream: Any = None  # what standard output was when a line was last written
        self._raw: Any = None
        self._pipe: SharedPipe | None = None

    def write(self, line: bytes) -> bool:
        """The line with its newline. Returns whether it was written whole."""
        if self._is_cut:
            line = b"\n" + line  # so that it is not joined to a part of another
        try:
            if sys.stdout is not self._stream:
                self._attach(sys.stdout)
            self._flush()  # what others printed comes first
            self._write(line)
        except (OSError, ValueError, AttributeError):  # ValueError: closed; AttributeError: None
            self.lost += 1
            return False
        return True

    def _attach(self, stream: TextIO) -> None:
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
        rest = line
        while rest:
            size = self._raw.write(rest)
            if not size:
                raise BlockingIOError("standard output is full")
            rest = rest[size:]
            self._is_cut = bool(rest)


def _shared_pipe(raw: io.RawIOBase) -> "SharedPipe | None":
    """None on Lambda, where no other process writes to standard output."""
    if is_lambda() or sys.platform != "linux":
        return None
    from feedrank.telemetry.pipe import SharedPipe

    try:
        return SharedPipe(raw.fileno())
    except (OSError, AttributeError):  # another kind of file, or none
        return None


class LogStream(io.TextIOBase):
    """The stream of a logging handler."""

    def write(self, text: str) -> int:
        output.write(text.encode(errors="backslashreplace"))
        return len(text)


output = Output()
