"""The local Lambda alone, with no AWS around it, for a load: the front and its environments.

    python -m feedbench.front_server BUNDLE PORT ENVIRONMENTS LONGEST_WAIT_S FOLDER

It listens when every environment is warm.
"""

import asyncio
import logging
import sys
from pathlib import Path

from feedops.local import gateway
from feedops.local.emulator import Function
from feedops.local.front import Front, serving
from feedops.local.pool import EnvironmentPool
from feedops.local.processes import LOCALHOST, reserve
from feedops.workspace import FUNCTION


async def serve(
    bundle: Path, port: int, environments: int, longest_wait_s: float, folder: Path
) -> None:
    logging.getLogger("feedops").setLevel(logging.ERROR)  # a warning for each throttled request
    pool = EnvironmentPool(
        Function(FUNCTION, {"MODEL_URI": str(bundle)}),
        environments,
        logs=folder / "logs",
        scratch=folder / "scratch",
        longest_wait_s=longest_wait_s,
    )
    with reserve(LOCALHOST, port) as bound:
        async with pool:
            await pool.warm_up(gateway.example_event("GET", "/health"))
            async with serving(Front(pool.invoke), bound):
                await asyncio.Event().wait()


if __name__ == "__main__":
    _bundle, _port, _environments, _wait, _folder = sys.argv[1:]
    asyncio.run(serve(Path(_bundle), int(_port), int(_environments), float(_wait), Path(_folder)))
