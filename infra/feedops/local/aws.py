"""AWS on this machine: the moto server, which keeps everything in memory."""

import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from feedops.local.processes import LOCALHOST, Process, free_port

START_TIMEOUT_S = 30.0
REGION = "us-east-1"
BUCKET = "feedrank-local"


@asynccontextmanager
async def local_aws(log: Path) -> AsyncIterator[dict[str, str]]:
    """Yields the environment variables by which AWS's SDKs reach it.

    Raises StartError with the end of the log.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", LOCALHOST, "-p", str(port)]
    process = await Process.start("moto's server", command, log, {"PATH": os.defpath})
    try:
        await process.until_listening(port, START_TIMEOUT_S)
        yield {
            "AWS_ENDPOINT_URL": f"http://{LOCALHOST}:{port}",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }
    finally:
        await process.stop()


@contextmanager
def sdk_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Replaces all of this process's AWS_ variables by these, for the SDKs in it."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def create_bucket() -> None:
    """On the endpoint that the environment names."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=BUCKET)
