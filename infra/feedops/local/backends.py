"""What serves requests on the port: Lambda environments behind the HTTP front, or uvicorn."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from feedops.errors import StartError
from feedops.local import gateway
from feedops.local.emulator import Function
from feedops.local.front import Front, serving
from feedops.local.pool import EnvironmentPool
from feedops.local.processes import Process, tail
from feedops.local.serve_options import FrontName, ServeOptions

UVICORN_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Backend:
    """A running backend. `log` has its errors; `wait` returns or raises when it has ended."""

    log: Path
    wait: Callable[[], Awaitable[object]]


StartBackend = Callable[
    [ServeOptions, Function, socket.socket, Path], AbstractAsyncContextManager[Backend]
]


@asynccontextmanager
async def lambda_backend(
    options: ServeOptions, function: Function, bound: socket.socket, scratch: Path
) -> AsyncIterator[Backend]:
    pool = EnvironmentPool(function, options.concurrency, logs=options.logs, scratch=scratch)
    async with pool:
        await pool.warm_up(gateway.example_event("GET", "/health"))
        async with serving(Front(pool.invoke), bound):
            yield Backend(options.logs / "environment-1.log", asyncio.Event().wait)


@asynccontextmanager
async def uvicorn_backend(
    options: ServeOptions, function: Function, bound: socket.socket, scratch: Path
) -> AsyncIterator[Backend]:
    """The same app and settings on a web server, without Lambda's own variables."""
    bound.close()  # uvicorn binds the port itself
    command: list[str | Path] = [
        *(function.python, "-m", "feedrank.server"),
        *("--host", options.host, "--port", str(options.port)),
    ]
    process = await Process.start(
        "uvicorn",
        command,
        options.logs / "uvicorn.log",
        function.configuration(scratch),
        cwd=function.task_root,
    )

    async def wait() -> None:
        code = await process.wait()
        raise StartError(f"uvicorn ended with exit code {code}; {tail(process.log)}")

    try:
        await process.until_listening(options.port, UVICORN_START_TIMEOUT_S, options.near_host)
        yield Backend(process.log, wait)
    finally:
        await process.stop()


BACKENDS: Mapping[FrontName, StartBackend] = {
    "lambda": lambda_backend,
    "uvicorn": uvicorn_backend,
}
