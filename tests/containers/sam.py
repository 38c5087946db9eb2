"""SAM's own commands, as they are typed, and what they are compared with."""

import asyncio
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from containers import engine
from feedops.local.emulator import ARCHITECTURES
from feedops.local.processes import LOCALHOST, Process, free_port

START_TIMEOUT_S = 180.0
BASE = f"public.ecr.aws/lambda/python:3.13-{ARCHITECTURES[platform.machine().lower()]}"

Handle = Callable[[bytes], dict[str, Any]]


class Sam(NamedTuple):
    """SAM's commands, typed in a directory."""

    directory: Path
    options: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        pull = ("--skip-pull-image",) if engine.has(BASE) else ()
        reach = ("--container-host", LOCALHOST)  # Podman needs it, Docker is the same with it
        sam = (sys.executable, "-m", "samcli", "local")
        return [*sam, *arguments, *pull, *reach, *self.options]

    @property
    def environ(self) -> dict[str, str]:
        home = {"SAM_CLI_TELEMETRY": "0", "__SAM_CLI_APP_DIR": str(self.directory / "home")}
        return {"AWS_DEFAULT_REGION": "us-east-1", **os.environ, **home}

    def invoke(self, event: Path) -> dict[str, Any]:
        """What `sam local invoke` prints of the function's response."""
        process = subprocess.run(
            self.command("invoke", "Function", "--event", str(event)),
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        response: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        return response

    @contextmanager
    def serving(self, *command: str) -> Iterator[str]:
        """The address at which `start-lambda` or `start-api` listens. It leaves its containers when
        it is killed, and names each in its log."""
        port, log = free_port(), self.directory / f"{command[0]}.log"
        arguments = self.command(*command, "--port", str(port))
        with asyncio.Runner() as runner:
            start = Process.start("SAM", arguments, log, self.environ, cwd=self.directory)
            process = runner.run(start)
            try:
                runner.run(process.until_listening(port, START_TIMEOUT_S))
                yield f"http://{LOCALHOST}:{port}"
            finally:
                runner.run(process.stop())
                for container in re.findall(r"SAM_CONTAINER_ID: (\w+)", log.read_text()):
                    engine.docker("rm", "--force", "--volumes", container)
