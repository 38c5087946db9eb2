"""Child processes that leave nothing running, and ways to wait until one is ready."""

import asyncio
import errno
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, Self

from feedops.errors import ListenError, StartError
from feedops.local import tether

LOCALHOST = "127.0.0.1"
POLL_S = 0.005
LINES_QUOTED = 12
SERVER_PORTS = range(10_000, 32_768)  # Linux gives higher ports to clients and for port 0
_random = SystemRandom()  # can't be seeded, so two processes choose different ports


class Process:
    """A command under a tether, with a log file for its output. `name` is for messages."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._child = child
        # Without a stop(), asyncio would kill the tether, which then can't end the others.
        self._end_session = weakref.finalize(self, tether.kill_session, child.pid)

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environ: Mapping[str, str],
        cwd: Path | None = None,
    ) -> Self:
        """Appends to the log, so that a second start keeps the output of the first."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environ,
                cwd=cwd,
                start_new_session=True,
            )
        return cls(name, child, log)

    @property
    def is_running(self) -> bool:
        return self._child.returncode is None

    @property
    def session(self) -> int:
        """The id of the session that all its processes share."""
        return self._child.pid

    async def wait(self) -> int:
        """The command's exit code, when it and everything that it started have ended."""
        code = await self._child.wait()
        self._end_session()  # only needed if somebody killed the tether itself
        return code

    async def stop(self) -> None:
        if self._child.stdin:
            self._child.stdin.close()
        await self.wait()

    async def until_listening(self, port: int, timeout_s: float, host: str = LOCALHOST) -> None:
        """Wait until something accepts connections on the port.

        Raises StartError, with the end of the log, if the process ends or takes longer. Whatever
        is raised, the process is stopped first.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.is_running:
                    if await _is_listening(host, port):
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            await self.stop()
            raise StartError(
                f"{self.name} is not ready after {timeout_s:g} s; {tail(self.log)}"
            ) from error
        except BaseException:
            await self.stop()
            raise
        code = await self.wait()
        raise StartError(f"{self.name} ended with exit code {code}; {tail(self.log)}")


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends, or cancel it at SIGINT or SIGTERM."""
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def lines_of(log: Path) -> list[str]:
    """Divided where a writer ended one. JSON holds what Unicode calls the end of a line as it is,
    so a caller's id could else begin a line of its own."""
    text = log.read_text(errors="replace").removesuffix("\n")
    return text.split("\n") if text else []


def tail(log: Path, keep: Callable[[list[str]], list[str]] = list) -> str:
    """The last lines of a log, for a message; of those lines that `keep` returns, if given."""
    last = keep(lines_of(log))[-LINES_QUOTED:]
    return "\n".join([f"the end of {log}:", *(f"  {line}" for line in last)])


def reserve(host: str, port: int) -> socket.socket:
    """A bound socket that refuses connections until something listens on it.

    Raises ListenError that says whether the host or the port is wrong.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        reason = error.strerror or error
        raise ListenError(f"can't listen on {host}:{port}: {reason}; {_remedy(error)}") from error
    return bound


def _remedy(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    if error.errno == errno.EACCES:
        return "choose a --port of 1024 or more"
    return "choose another --port"


def free_port() -> int:
    """A port that nothing listens on now, outside the range for outgoing connections."""
    while True:
        port = _random.choice(SERVER_PORTS)
        with suppress(OSError), socket.create_server((LOCALHOST, port)):
            return port


async def _is_listening(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
