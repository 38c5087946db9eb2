"""The local Lambda alone, with no AWS around it, for a load: the front and its environments.

python -m feedbench.front_server BUNDLE PORT ENVIRONMENTS LONGEST_WAIT_S DIRECTORY
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from feedops.local import gateway
from feedops.local.emulator import Function
from feedops.local.front import Front, serving
from feedops.local.pool import EnvironmentPool
from feedops.local.processes import LOCALHOST, Process, free_port, reserve
from feedops.workspace import FUNCTION

START_TIMEOUT_S = 60.0


@asynccontextmanager
async def front_server(
    scratch: Path, bundle: Path, *, environments: int, longest_wait_s: float
) -> AsyncIterator[int]:
    """The port of a front in a process of its own, every environment warm. Raises StartError."""
    port = free_port()
    line = [sys.executable, "-m", "feedbench.front_server", *map(str, (bundle, port, environments))]
    line += [str(longest_wait_s), str(scratch / "front")]
    log = scratch / "front.log"
    process = await Process.start("the local Lambda", line, log, {"PATH": os.defpath})
    try:
        await process.until_listening(port, START_TIMEOUT_S)
        yield port
    finally:
        await process.stop()


async def serve(bundle: str, port: str, environments: str, wait_s: str, directory: str) -> None:
    logging.getLogger("feedops").setLevel(logging.ERROR)  # a warning for each throttled request
    function = Function(FUNCTION, {"MODEL_URI": bundle})
    pool = EnvironmentPool(
        function,
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
