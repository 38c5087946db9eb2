"""Workers that share a pipe as standard output: every line is whole, and none is lost."""

import fcntl
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from termios import FIONREAD

import pytest

from fakes import HANDLER
from feedrank.telemetry import pipe
from feedrank.telemetry.output import Output

LINES, LINE_BYTES = 500, 8_000
WRITE = f"""
import json, sys
from feedrank.telemetry.output import output
for number in range({LINES}):
    line = json.dumps([sys.argv[1], number]).encode()
    output.write(line[:-1] + b', "' + b"x" * {LINE_BYTES} + b'"]\\n')
sys.exit(output.lost)
"""
HOLD_THE_LOCK = """
import fcntl, sys
fcntl.lockf(1, fcntl.LOCK_EX)
sys.stderr.write("locked")
sys.stderr.flush()
sys.stdin.read()
"""
Start = Callable[[str, str], subprocess.Popen[bytes]]


class Pipe:
    """Its two ends."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        self.reader, self.writer = os.fdopen(reader, "rb"), os.fdopen(writer, "wb", buffering=0)

    def unread(self) -> int:
        return int.from_bytes(fcntl.ioctl(self.reader, FIONREAD, bytes(4)), "little")

    def output(self, monkeypatch: pytest.MonkeyPatch) -> Output:
        stdout = os.fdopen(self.writer.fileno(), "w", closefd=False)
        monkeypatch.setattr(sys, "stdout", stdout)
        return Output()


@pytest.fixture
def shared() -> Iterator[Pipe]:
    ends = Pipe()
    yield ends
    ends.reader.close()
    ends.writer.close()


@pytest.fixture
def start(shared: Pipe) -> Iterator[Start]:
    """Starts a process with the pipe as standard output and the name as its argument."""
    processes: list[subprocess.Popen[bytes]] = []

    def start_process(code: str, name: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, name],
            cwd=HANDLER.parent,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=shared.writer,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def _written_by(line: bytes) -> tuple[str, int]:
    name, number, filling = json.loads(line)
    assert len(filling) == LINE_BYTES
    return name, number


def test_four_processes_split_no_line_and_lose_none(shared: Pipe, start: Start) -> None:
    processes = [start(WRITE, name) for name in "abcd"]
    shared.writer.close()
    lines = [_written_by(line) for line in shared.reader]
    assert sorted(lines) == [(name, number) for name in "abcd" for number in range(LINES)]
    assert [process.wait() for process in processes] == [0] * 4


def test_a_killed_process_splits_no_line_of_another(shared: Pipe, start: Start) -> None:
    processes = {name: start(WRITE, name) for name in "abcd"}
    shared.writer.close()
    while 2 * shared.unread() < fcntl.fcntl(shared.reader, fcntl.F_GETPIPE_SZ) - 4 * LINE_BYTES:
        pass  # until all of them wait for room
    processes["a"].kill()
    written = Counter(_written_by(line)[0] for line in shared.reader)
    assert written.pop("a", 0) < LINES
    assert written == dict.fromkeys("bcd", LINES)


def test_a_stopped_process_with_the_lock_holds_nobody_up(
    shared: Pipe, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "MAX_WAIT_S", 0.01)
    output = shared.output(monkeypatch)
    holder = start(HOLD_THE_LOCK, "")
    assert holder.stderr
    assert holder.stderr.read(6) == b"locked"
    assert output.write(b"first\n")
    assert output.write(b"second\n")
    assert os.read(shared.reader.fileno(), 100) == b"first\nsecond\n"
    assert output.lost == 0


def test_a_reader_that_does_not_read_is_waited_for_once(
    shared: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(pipe, "sleep", pauses.append)
    monkeypatch.setattr(pipe, "MAX_WAIT_S", 0.05)
    output = shared.output(monkeypatch)
    line = b"x" * LINE_BYTES + b"\n"
    lines = 0
    while output.write(line):
        lines += 1
    assert pauses
    pauses.clear()
    assert not output.write(line)
    assert (output.lost, pauses) == (2, [])
    assert os.read(shared.reader.fileno(), 1 << 20) == lines * line
    assert output.write(line)
    assert os.read(shared.reader.fileno(), 1 << 20) == line
    while output.write(line):
        pass
    assert pauses, "it is waited for again"


def test_a_line_larger_than_the_pipe_waits_until_it_is_empty(
    shared: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "CAPACITY_BYTES", 1 << 16)
    monkeypatch.setattr(pipe, "MAX_WAIT_S", 0.01)
    output = shared.output(monkeypatch)
    large = b"x" * (1 << 16) + b"\n"
    assert output.write(b"small\n")
    assert not output.write(large[1:])
    assert os.read(shared.reader.fileno(), 100) == b"small\n"
    assert output.write(large[1:])
    assert os.read(shared.reader.fileno(), 1 << 17) == large[1:]


@pytest.mark.parametrize("sizes", [[2_049], [4_096], [1, 4_096], [4_095, 2], [4_097, 4_090]])
def test_a_line_that_fits_is_written_at_once(shared: Pipe, sizes: list[int]) -> None:
    """However full the pages before it are: a write that would wait fails here."""
    os.set_blocking(shared.writer.fileno(), False)
    shared_pipe = pipe.SharedPipe(shared.writer.fileno())
    for number in range(10_000):
        size = sizes[number % len(sizes)]
        if not shared_pipe._fits(size):
            break
        assert shared.writer.write(bytes(size)) == size
    assert 2 * shared.unread() > 0.9 * (1 << 20)


def test_on_lambda_the_pipe_is_not_locked(shared: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "feedrank")
    output = shared.output(monkeypatch)
    assert output.write(b"line\n")
    assert output._pipe is None
    assert fcntl.fcntl(shared.reader, fcntl.F_GETPIPE_SZ) == 1 << 16


def test_a_file_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        output = Output()
        assert output.write(b"line\n")
        assert output._pipe is None
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert output.write(b"line\n")


def test_a_worker_that_writes_nothing_holds_no_lock() -> None:
    """The lock is the process's: it would be held until the worker's first line."""
    reading, writing = os.pipe()
    start = (
        f"from feedrank.telemetry.pipe import SharedPipe; SharedPipe({writing}); print(); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start],
        cwd=HANDLER.parent,
        pass_fds=[writing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == b"\n"  # it has opened the pipe
        fcntl.lockf(writing, fcntl.LOCK_EX | fcntl.LOCK_NB)
        worker.communicate(b"\n")
    os.close(reading)
    os.close(writing)
