"""Child processes that leave nothing behind, and how to know that they are ready."""

import asyncio
import errno
import socket
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Self

from feedops.errors import ListenError, StartError
from feedops.local import tether

LOCALHOST = "127.0.0.1"
POLL_S = 0.005
LINES_QUOTED = 12
SERVER_PORTS = range(10_000, 32_768)  # above, Linux gives ports to clients and for port 0
_random = SystemRandom()  # nobody seeds it: two processes choose differently


class Process:
    """A command on a tether, with a log file for all that it prints. `name` is for messages."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._child = child
        # If it is never stopped, asyncio kills the tether, which then can't end the rest.
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
        """The log is appended to, so that a second start leaves the first one's last words."""
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
        """The session id that all its processes share."""
        return self._child.pid

    async def wait(self) -> int:
        """Its exit code, once it and everything that it started are gone."""
        code = await self._child.wait()
        self._end_session()  # nothing is left to end, unless somebody killed the tether itself
        return code

    async def stop(self) -> None:
        if self._child.stdin:
            self._child.stdin.close()
        await self.wait()

    async def until_listening(self, port: int, timeout_s: float, host: str = LOCALHOST) -> None:
        """Raises StartError, with the end of the log, when it dies or takes longer. Unless this
        returns, the process is gone."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.is_running and not await _is_listening(host, port):  # noqa: ASYNC110 no event
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            await self.stop()
            raise StartError(
                f"{self.name} is not ready after {timeout_s:g} s; {tail(self.log)}"
            ) from error
        except BaseException:
            await self.stop()
            raise
        if not self.is_running:
            code = await self.wait()
            raise StartError(f"{self.name} ended with exit code {code}; {tail(self.log)}")


def tail(log: Path, chosen: Callable[[list[str]], list[str]] = list) -> str:
    """The end of a log, for a message: the last of its lines, or of those `chosen` from them."""
    last = chosen(log.read_text(errors="replace").splitlines())[-LINES_QUOTED:]
    return "\n".join([f"the end of {log}:", *(f"  {line}" for line in last)])


def reserve(host: str, port: int) -> socket.socket:
    """A bound socket that refuses connections until something listens on it.

    Raises ListenError, which blames the host or the port.
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
    """A port that nothing listens on at the moment, and that no outgoing connection is given."""
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
