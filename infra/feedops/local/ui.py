"""`feedrank ui`: MLflow's own web pages, on the tracking store that training writes."""

import asyncio
import os
import sys
from pathlib import Path

from rich.console import Console

from feedmodel.publish import tracking
from feedops.display import print_whole, steps
from feedops.errors import ModelMissingError, StartError
from feedops.local.processes import LOCALHOST, Process, reserve, tail, until_signal
from feedops.models.bundles import has_store
from feedops.workspace import LOGS

START_TIMEOUT_S = 120.0
STORE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
SERVERS = ("http://", "https://")


def serve_ui(port: int, tracking_uri: str | None, console: Console) -> None:
    """Serve the pages until SIGINT or SIGTERM, to this machine alone. If MLflow is a server
    already, only print its address."""
    uri = tracking.tracking_uri(tracking_uri)
    if uri.startswith(SERVERS):
        print_whole(console, f"MLflow serves its pages itself: {tracking.without_secret(uri)}")
        return
    if not has_store(tracking_uri):
        raise ModelMissingError(
            f"{tracking.without_secret(uri)}: there is nothing to show; `feedrank train` makes it"
        )
    reserve(LOCALHOST, port).close()  # a clear error if the port is taken
    asyncio.run(until_signal(_serve(port, uri, console)))
    console.print("Stopped.")


async def _serve(port: int, uri: str, console: Console) -> None:
    command: list[str | Path] = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", LOCALHOST, "--port", str(port), "--workers", "1", "--no-serve-artifacts"),
    ]
    environ = os.environ | {STORE_VARIABLE: uri}  # not an argument: every user sees those
    log = LOGS / f"mlflow-{port}.log"
    with steps(console, "Starting MLflow, some seconds"):
        process = await Process.start("MLflow", command, log, environ)
        await process.until_listening(port, START_TIMEOUT_S)
    try:
        print_whole(
            console, f"MLflow shows {tracking.without_secret(uri)} at http://{LOCALHOST}:{port}"
        )
        console.print("Serving until Ctrl-C.")
        code = await process.wait()
        raise StartError(f"MLflow ended with exit code {code}; {tail(log)}")
    finally:
        await process.stop()
