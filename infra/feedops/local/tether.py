"""Runs one command that can't outlive the process that started it.

    python -I -S tether.py COMMAND...        in a session of its own, standard input a pipe

The parent holds the pipe's other end. When that closes, because the parent closes it or has ended,
even by SIGKILL, every process of the session is killed. The same happens when the command itself
ends, because the emulator starts the runtime in a separate process group, which nothing else would
find. Standard library only and few imports, because it delays every start.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

READ_BYTES = 4_096  # more than a line of /proc/PID/stat has
PARENT, SESSION = 1, 3  # fields after the command's name in /proc/PID/stat; 0 is the state
ZOMBIE = b"Z"
NOT_FOUND = 127  # the exit codes are those of a shell


def main(command: list[str]) -> None:
    signal.signal(signal.SIGTERM, _on_termination)
    signal.signal(signal.SIGCHLD, _on_child_exit)
    standard_input = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    try:
        os.posix_spawnp(command[0], command, os.environ, file_actions=standard_input)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        _end(NOT_FOUND)
    while os.read(0, READ_BYTES):
        pass
    _end(0)


def kill_session(session: int) -> None:
    """Kill every process of the session but this one; return when none is left.

    All are stopped before any is killed, and children are killed before their parents, because a
    runtime that saw its emulator end would write a traceback into the function's log. (Linux sends
    SIGHUP and SIGCONT to a stopped process group whose parent ends; under nohup SIGHUP is ignored.)
    """
    if sys.platform != "linux":  # no /proc: only the group is known, and this process may be in it
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)
        return
    while members := members_of(session):
        stops = [(pid, signal.SIGSTOP) for pid in members]
        kills = [(pid, signal.SIGKILL) for pid in reversed(members)]
        for pid, number in stops + kills:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def members_of(session: int) -> list[int]:
    """Live processes of the session and their descendants, which may be in other sessions; parents
    before their children, without this process."""
    alive = dict(_processes())
    members = {pid for pid, (_, of) in alive.items() if of == session}
    while children := {p for p, (parent, _) in alive.items() if parent in members} - members:
        members |= children
    members -= {os.getpid()}
    ordered: list[int] = []
    generation = {pid for pid in members if alive[pid][0] not in members}
    while generation:
        ordered += sorted(generation)
        generation = {pid for pid in members if alive[pid][0] in generation}
    return ordered


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Each live process, with its parent and its session. Importing pathlib would double the time
    to start, hence `os`."""
    with os.scandir("/proc") as entries:
        pids = [entry.name for entry in entries if entry.name.isdigit()]
    for pid in pids:
        try:
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended in the meantime
            continue
        if fields[0] != ZOMBIE:
            yield int(pid), (int(fields[PARENT]), int(fields[SESSION]))


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, READ_BYTES)
    finally:
        os.close(descriptor)


def _on_child_exit(_signal: int, _frame: FrameType | None) -> None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:  # the command was never started
        return
    if not pid:  # it was stopped or continued, and hasn't ended
        return
    code = os.waitstatus_to_exitcode(status)
    _end(code if code >= 0 else 128 - code)


def _on_termination(_signal: int, _frame: FrameType | None) -> None:
    _end(128 + signal.SIGTERM)


def _end(code: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kill_session(os.getsid(0))
    with suppress(ChildProcessError):  # already waited for
        os.wait()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
