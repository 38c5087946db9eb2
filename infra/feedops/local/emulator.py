"""One Lambda execution environment: the real runtime client under the real emulator, no Docker.

The emulator is AWS's Runtime Interface Emulator, from the aws-sam-cli wheel. It takes one
invocation at a time (a second one kills it). It starts the runtime at the first invocation, kills
the runtime when an invocation times out, and starts a new one at the next.
"""

import asyncio
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Self

import aiohttp

from feedops.errors import (
    EmulatorMissingError,
    EnvironmentLostError,
    FunctionError,
    FunctionTimeoutError,
    StartError,
)
from feedops.local import tether
from feedops.local.processes import LOCALHOST, Process, free_port

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
INVOCATIONS = "/2015-03-31/functions/function/invocations"
START_TIMEOUT_S = 10.0
START_ATTEMPTS = 3  # another process may take the free port before the emulator does
GRACE_S = 5.0  # after the function's own timeout, until the emulator counts as lost
KIB_PER_MB = 1_024

_TIMED_OUT = re.compile(rb"Task timed out after [\d.]+ seconds")
_PEAK_MEMORY = re.compile(r"VmHWM:\s+(\d+) kB")


@dataclass(frozen=True, slots=True)
class Function:
    """A Lambda function as it would be deployed: its code, layers and configuration."""

    task_root: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    handler: str = "handler.lambda_handler"
    python: Path = Path(sys.executable)
    runtime: str = f"python{sys.version_info.major}.{sys.version_info.minor}"  # of `python`
    layers: tuple[Path, ...] = ()  # directories on sys.path after the task root
    name: str = "feedrank"
    memory_mb: int = 1_769  # one vCPU; the function reads it, the emulator doesn't enforce it
    timeout_s: int = 10
    region: str = "us-east-1"

    def configuration(self, temporary: Path) -> dict[str, str]:
        """The function's environment on any backend, without the variables of this shell."""
        return {
            "PATH": os.defpath,
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "TMPDIR": str(temporary),
            "PYTHONPATH": os.pathsep.join(map(str, (self.task_root, *self.layers))),
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_SESSION_TOKEN": "local",
            "AWS_EC2_METADATA_DISABLED": "true",
            "MODEL_CACHE_DIR": str(temporary / "feedrank"),  # the default is in the real /tmp
            **self.variables,
        }

    def lambda_environ(self, temporary: Path) -> dict[str, str]:
        """The configuration with Lambda's own variables."""
        return {
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{self.runtime}",
            "LAMBDA_TASK_ROOT": str(self.task_root),
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self.timeout_s),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            **self.configuration(temporary),
        }


class ExecutionEnvironment:
    """One emulator with the runtime that it starts."""

    def __init__(
        self, function: Function, process: Process, port: int, session: aiohttp.ClientSession
    ) -> None:
        self._process = process
        self._session = session  # this environment's own
        self._url = f"http://{LOCALHOST}:{port}{INVOCATIONS}"
        # The emulator applies the timeout to the init, and again to the invocation.
        self._timeout = aiohttp.ClientTimeout(total=2 * function.timeout_s + GRACE_S)

    @classmethod
    async def start(cls, function: Function, *, log: Path, temporary: Path) -> Self:
        """The first invocation will run the init. `temporary` is emptied and becomes its /tmp.

        Raises EmulatorMissingError, or StartError with the end of the log.
        """
        emulator = find_emulator()
        environ = function.lambda_environ(_emptied(temporary))
        for attempt in range(1, START_ATTEMPTS + 1):
            port, runtime_port = free_port(), free_port()
            command: list[str | Path] = [
                *(emulator, "--runtime-interface-emulator-address", f"{LOCALHOST}:{port}"),
                *("--runtime-api-address", f"{LOCALHOST}:{runtime_port}"),
                *(function.python, "-m", "awslambdaric", function.handler),
            ]
            log_bytes = _size(log)
            process = await Process.start(
                "the Lambda emulator", command, log, environ, cwd=function.task_root
            )
            try:
                await process.until_listening(port, START_TIMEOUT_S)
                break
            except StartError:
                if attempt == START_ATTEMPTS:
                    raise
                os.truncate(log, log_bytes)  # the failed emulator's output isn't the function's
        return cls(function, process, port, aiohttp.ClientSession())

    @property
    def log(self) -> Path:
        return self._process.log

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    async def invoke(self, event: bytes) -> bytes:
        """The function's response, JSON. At most one invocation at a time.

        Raises FunctionError or a subclass; after EnvironmentLostError the environment has ended.
        """
        body = BytesIO(event)  # aiohttp warns about bytes over 1 MB, and an event may have 6 MB
        try:
            async with self._session.post(self._url, data=body, timeout=self._timeout) as response:
                payload = await response.read()
        except asyncio.CancelledError:
            await self.stop()  # it is still busy, and a second invocation would kill the emulator
            raise
        except (aiohttp.ClientError, TimeoutError) as error:
            await self.stop()
            raise EnvironmentLostError(
                "Runtime.ExitError", f"the execution environment has ended; see {self.log}"
            ) from error
        raise_failure(response.status, payload)
        return payload

    def peak_memory_mb(self) -> int:
        """Of its largest process, which is the runtime while that is alive."""
        members = tether.members_of(self._process.session)
        statuses = (Path(f"/proc/{pid}/status").read_text() for pid in members)
        peaks_kib = [int(match[1]) for match in map(_PEAK_MEMORY.search, statuses) if match]
        return max(peaks_kib, default=0) // KIB_PER_MB

    async def wait(self) -> None:
        """Wait until it has ended, by stop() or by itself."""
        await self._process.wait()
        await self._session.close()

    async def stop(self) -> None:
        await self._process.stop()
        await self._session.close()


def find_emulator() -> Path:
    """The emulator's executable. Raises EmulatorMissingError that says what else to do."""
    architecture = ARCHITECTURES.get(platform.machine().lower())
    if sys.platform != "linux" or not architecture:
        raise EmulatorMissingError(
            "the Lambda emulator runs on Linux, on x86_64 or arm64; on "
            f"{platform.system()} {platform.machine()} use feedrank serve --front uvicorn: "
            "the same app, no Lambda"
        )
    package = find_spec("samcli")
    if not package or not package.origin:
        raise EmulatorMissingError(
            "the Lambda emulator is part of aws-sam-cli, which isn't installed: "
            "pip install aws-sam-cli, or use feedrank serve --front uvicorn"
        )
    emulator = Path(package.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{architecture}"
    if not emulator.is_file():
        raise EmulatorMissingError(
            f"this aws-sam-cli has no {emulator.name}; pip install -U aws-sam-cli, "
            "or use feedrank serve --front uvicorn"
        )
    if not os.access(emulator, os.X_OK):
        try:
            emulator.chmod(emulator.stat().st_mode | 0o111)
        except OSError as error:
            raise EmulatorMissingError(f"{emulator} can't be made executable: {error}") from error
    return emulator


def raise_failure(status: int, payload: bytes) -> None:
    """Raise FunctionError if the emulator's response is not the function's.

    It is a 502 if the runtime died or the response is over Lambda's size limit; plain text, never
    valid JSON, after a timeout; the runtime's error document, as in Lambda, if the handler raised.
    """
    if _TIMED_OUT.fullmatch(payload):
        raise FunctionTimeoutError("Sandbox.Timedout", payload.decode())
    if status == HTTPStatus.OK and b'"errorType"' not in payload:
        return
    try:
        response = json.loads(payload)
    except ValueError as error:
        raise FunctionError("Runtime.ExitError", payload.decode(errors="replace")) from error
    if isinstance(response, dict) and "errorType" in response and "statusCode" not in response:
        raise FunctionError(
            response["errorType"],
            response.get("errorMessage") or "",
            response.get("stackTrace") or (),
        )


def _emptied(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory.absolute()


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
