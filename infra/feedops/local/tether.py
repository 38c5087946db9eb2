"""Runs one command that can't outlive whoever started it.

    python -I -S tether.py COMMAND...        in a session of its own, standard input a pipe

The starter holds the pipe's other end. When that closes, because the starter wants it or because
the starter is gone, even by SIGKILL, every process of the session dies. So it does when the
command itself ends: the emulator starts the runtime in a process group of its own, which nothing
else would find. Standard library only and few imports: it stands before every start.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

READ_AT_ONCE = 4_096  # bytes
PARENT, SESSION = 1, 3  # fields after the command's name in /proc/PID/stat; 0 is the state
ZOMBIE = b"Z"
NOT_FOUND = 127  # as a shell has it, like the other exit codes


def main(command: list[str]) -> None:
    signal.signal(signal.SIGTERM, _on_termination)
    signal.signal(signal.SIGCHLD, _on_child_exit)
    standard_input = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    try:
        os.posix_spawnp(command[0], command, os.environ, file_actions=standard_input)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        _end(NOT_FOUND)
    while os.read(0, READ_AT_ONCE):
        pass
    _end(0)


def kill_session(session: int) -> None:
    """Kill every process of the session but this one; return when none is left.

    All are stopped before one is killed, and children are killed before their parents: a runtime
    that saw its emulator end would still write a traceback into the function's log. Linux wakes a
    stopped process group whose parent ends, by SIGCONT after a SIGHUP, which nohup has it ignore.
    """
    if sys.platform != "linux":  # no /proc: the group is the best known, and may take us along
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
    """Processes of the session that are alive, and their descendants, which may have started
    sessions of their own; parents before their children. This process is left out."""
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
    """Each process that is alive, with its parent and its session."""
    for name in os.listdir("/proc"):  # noqa: PTH208 pathlib would double the time to start
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                    fields = stat.read().rpartition(b")")[2].split()
            except (FileNotFoundError, ProcessLookupError):  # it has ended since
                continue
            if fields[0] != ZOMBIE:
                yield int(name), (int(fields[PARENT]), int(fields[SESSION]))


def _on_child_exit(_signal: int, _frame: FrameType | None) -> None:
    try:
        _, status = os.wait()
    except ChildProcessError:  # it never became the command
        return
    code = os.waitstatus_to_exitcode(status)
    _end(code if code >= 0 else 128 - code)


def _on_termination(_signal: int, _frame: FrameType | None) -> None:
    _end(128 + signal.SIGTERM)


def _end(code: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kill_session(os.getsid(0))
    with suppress(ChildProcessError):  # that has been waited for
        os.wait()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
