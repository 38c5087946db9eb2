"""The app under a real uvicorn, as the container images run it, in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from fakes import HANDLER
from stack.faulty import FaultyFront


class Server(NamedTuple):
    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def uvicorn(
    bundle: Path | str,
    *flags: str,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    before: str = "",
    function: Path = HANDLER.parent,
    **env: str,
) -> Iterator[Server]:
    """Ready to be asked. It chooses its port, and says on standard error which. `before` is code
    that runs there first, and may change what `server` has. `function` has the handler."""
    start = ["-c", f"from feedrank import server\n{before}\nserver.main()"]
    if not before:
        start = ["-m", "feedrank.server"]
    command = [sys.executable, *start, "--port", "0", *flags]
    environ = {"PATH": os.environ["PATH"], "MODEL_URI": str(bundle), **env}
    process = subprocess.Popen(
        command, cwd=function, env=environ, stdout=stdout, stderr=subprocess.PIPE
    )
    try:
        yield Server(_address(process), process)
    finally:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def _address(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line.decode())
        if match := re.search(r"running on (http://\S+)", lines[-1]):
            return match[1]
    raise AssertionError("".join(lines))


def stream(front: FaultyFront) -> dict[str, str]:
    """Far more time than a record may take, so that it is the record's limit which ends it."""
    return {
        "DECISION_STREAM": "decisions",
        "REQUEST_TIMEOUT_MS": "60000",
        "AWS_ENDPOINT_URL_FIREHOSE": front.url,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }


@contextmanager
def with_held_stream(
    bundle: Path, stdout: Path, *flags: str, before: str = ""
) -> Iterator[tuple[FaultyFront, Server]]:
    """A server that prints into a file, and the stream of its records, which responds late with
    503."""
    with (
        FaultyFront(usual="held") as front,
        stdout.open("w+b") as output,
        uvicorn(bundle, *flags, stdout=output, before=before, **stream(front)) as server,
    ):
        yield front, server
