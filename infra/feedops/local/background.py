"""Servers in processes of their own, for as long as a block lasts; and the one that is the local
Lambda alone, without AWS:

    python -m feedops.local.background BUNDLE PORT ENVIRONMENTS LONGEST_WAIT_S DIRECTORY [NAME=TEXT]
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import aiohttp

from feedops.errors import StartError
from feedops.local import gateway
from feedops.local.emulator import Function
from feedops.local.front import Front, serving
from feedops.local.pool import EnvironmentPool
from feedops.local.processes import LOCALHOST, Process, free_port, reserve, tail
from feedops.workspace import FUNCTION

JSON = {"content-type": "application/json"}
START_TIMEOUT_S = 120.0
RESPONSE_TIMEOUT_S = 15.0
POLL_S = 0.1


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    environ: Mapping[str, str],
    url: str,
    *,
    body: bytes | None = None,
    cwd: Path | None = None,
) -> Iterator[None]:
    """A process that answers a request at `url`, a GET or this body's POST. Raises StartError."""
    with asyncio.Runner() as runner:
        process = runner.run(Process.start(url, command, log, environ, cwd=cwd))
        try:
            runner.run(_until_it_responds(process, url, body))
            yield
        finally:
            runner.run(process.stop())


async def _until_it_responds(process: Process, url: str, body: bytes | None) -> None:
    """Some listen before their model is there, and may never respond to what comes too early."""
    method, text, end_s = "POST" if body else "GET", "", monotonic() + START_TIMEOUT_S
    timeout = aiohttp.ClientTimeout(total=RESPONSE_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=JSON, timeout=timeout) as client:
        while monotonic() < end_s:
            try:
                async with client.request(method, url, data=body) as response:
                    text = await response.text()
                    if response.ok:
                        return
            except (aiohttp.ClientError, TimeoutError) as error:
                text = repr(error)
            await asyncio.sleep(POLL_S)
            if not process.is_running:
                break
    raise StartError(f"it responds with {text[:200]!r}; {tail(process.log)}")


@contextmanager
def front_server(
    scratch: Path, bundle: Path, *, environments: int, longest_wait_s: float, **variables: str
) -> Iterator[str]:
    """The URL of a front whose environments are all warm. `variables` are the function's. Raises
    StartError."""
    port = free_port()
    settings = [f"{name}={value}" for name, value in variables.items()]
    arguments = map(str, (bundle, port, environments, longest_wait_s, scratch / "front", *settings))
    command, url = [sys.executable, "-m", __name__, *arguments], f"http://{LOCALHOST}:{port}"
    with running(command, scratch / "front.log", {"PATH": os.defpath}, f"{url}/health"):
        yield url


async def serve(
    bundle: str, port: str, environments: str, wait_s: str, directory: str, *settings: str
) -> None:
    logging.getLogger("feedops").setLevel(logging.ERROR)  # a warning for each throttled request
    pool = EnvironmentPool(
        Function(FUNCTION, {"MODEL_URI": bundle} | dict(s.split("=", 1) for s in settings)),
        int(environments),
        logs=Path(directory, "logs"),
        scratch=Path(directory, "scratch"),
        longest_wait_s=float(wait_s),
    )
    with reserve(LOCALHOST, int(port)) as bound:
        async with pool:
            await pool.warm_up(gateway.example_event("GET", "/health"))
            async with serving(Front(pool.invoke), bound):
                await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
