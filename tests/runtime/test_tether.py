"""However the parent or the command ends, no process survives."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feedops.local import tether
from feedops.local.processes import Process, free_port
from feedops.local.tether import members_of

LONGEST_S = 20.0

# A command with a child in a process group of its own, as the emulator starts the runtime.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
{then}
"""
LISTEN = """
import socket, time
server = socket.create_server(("127.0.0.1", {port}))
time.sleep(600)
"""
STAY = "time.sleep(600)"
# Starts a tether, then waits to be killed.
PARENT = """
import subprocess, sys
tethered = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)
tethered.wait()
"""


TETHER = [sys.executable, "-I", "-S", tether.__file__]


def family(then: str) -> list[str]:
    return [sys.executable, "-c", FAMILY.format(then=then)]


@contextmanager
def ends(pid: int) -> Iterator[None]:
    """The process ends in time after the body."""
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    try:
        yield
        assert poll.poll(1_000 * LONGEST_S)
    finally:
        os.close(process)


@contextmanager
def tether_of(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*TETHER, *command], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        yield process


@pytest.fixture
def tethered() -> Iterator[subprocess.Popen[bytes]]:
    with tether_of(family(STAY)) as process:
        yield process


def child_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout
    return int(process.stdout.readline())


def test_closing_the_pipe_ends_the_whole_session(tethered: subprocess.Popen[bytes]) -> None:
    assert tethered.stdin
    with ends(child_of(tethered)):
        tethered.stdin.close()
    assert tethered.wait(LONGEST_S) == 0
    assert members_of(tethered.pid) == []


def test_a_signal_to_the_tether_ends_the_whole_session(tethered: subprocess.Popen[bytes]) -> None:
    with ends(child_of(tethered)):
        tethered.terminate()
    assert tethered.wait(LONGEST_S) == 128 + signal.SIGTERM
    assert members_of(tethered.pid) == []


def test_a_child_that_started_a_session_of_its_own_ends_too() -> None:
    """A server's workers may do that, and would never end."""
    command = family(STAY)
    command[-1] = command[-1].replace("process_group=0", "start_new_session=True")
    with tether_of(command) as process:
        assert process.stdin
        with ends(child_of(process)):
            process.stdin.close()


def test_a_command_that_was_stopped_ends_with_the_pipe_all_the_same() -> None:
    """Its parent is told of a stop by the same signal as of an end."""
    with tether_of(family(f"os.kill(os.getpid(), {signal.SIGSTOP})\n{STAY}")) as process:
        assert process.stdin
        with ends(child_of(process)):
            _tether, command, _child = members_of(process.pid)
            while " T " not in Path(f"/proc/{command}/stat").read_text():
                os.sched_yield()
            process.stdin.close()


def test_no_process_survives_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", PARENT, *TETHER, *family(STAY)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as parent,
        ends(child_of(parent)),
    ):
        parent.kill()


@pytest.mark.parametrize(
    ("then", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)]
)
def test_the_end_of_the_command_ends_its_session(then: str, code: int) -> None:
    with tether_of(family(f"{then}")) as process:
        assert process.wait(LONGEST_S) == code
        assert members_of(process.pid) == []


def test_an_unknown_command_is_an_error() -> None:
    with tether_of(["/no/such/command"]) as process:
        assert process.stderr
        assert process.wait(LONGEST_S) == tether.NOT_FOUND
        assert process.stderr.read() == b"/no/such/command: No such file or directory\n"


def test_a_process_ends_with_the_object_that_is_never_stopped(tmp_path: Path) -> None:
    async def start_and_forget() -> int:
        port = free_port()
        command = [sys.executable, "-c", LISTEN.format(port=port)]
        process = await Process.start("server", command, tmp_path / "log", {"PATH": os.defpath})
        await process.until_listening(port, LONGEST_S)
        session, child = process.session, process._child
        del process  # the last reference
        await child.wait()  # so that asyncio doesn't warn
        return session

    assert members_of(asyncio.run(start_and_forget())) == []


def test_no_process_survives_a_tether_that_is_killed(tmp_path: Path) -> None:
    async def kill_the_tether() -> int:
        command = [sys.executable, "-c", FAMILY.format(then=STAY)]
        process = await Process.start("family", command, tmp_path / "log", {"PATH": os.defpath})
        os.kill(process.session, signal.SIGKILL)
        await process.wait()
        return process.session

    assert members_of(asyncio.run(kill_the_tether())) == []


def test_all_are_stopped_and_then_killed_children_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise one would see another end, and report it in their common log."""
    sent: list[tuple[int, int]] = []
    kill = os.kill

    def recorded(pid: int, number: int) -> None:
        sent.append((number, pid))
        kill(pid, number)

    with subprocess.Popen(family(STAY), stdout=subprocess.PIPE, start_new_session=True) as process:
        child = child_of(process)
        monkeypatch.setattr(os, "kill", recorded)
        tether.kill_session(process.pid)
    assert sent[:4] == [
        (signal.SIGSTOP, process.pid),
        (signal.SIGSTOP, child),
        (signal.SIGKILL, child),
        (signal.SIGKILL, process.pid),
    ]
    assert members_of(process.pid) == []
