"""`feedrank invoke`: one event on the local Lambda runtime, as `sam local invoke` does it."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedops.errors import FunctionError, OperationError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.local.emulator_log import printed_by_function, reports
from feedops.local.processes import lines_of
from feedops.models.bundles import manifest_of, newest_bundle
from feedops.workspace import FUNCTION, scratch_directory

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Invocation:
    """`response` is what the function returned; `error` is why it returned nothing.

    `log` is what it printed, then Lambda's REPORT line.
    """

    response: Any
    error: FunctionError | None
    log: list[str]


def invoke_bundle(
    event: bytes,
    bundle: Path | None,
    variables: Mapping[str, str],
    *,
    memory_mb: int,
    timeout_s: int,
) -> Invocation:
    """Invoke the function with this bundle, or with the newest one if None.

    Raises ModelMissingError, or what `invoke` raises.
    """
    directory = (bundle or newest_bundle()).absolute()
    manifest_of(directory)
    function = Function(
        FUNCTION,
        {"MODEL_URI": str(directory), **variables},
        memory_mb=memory_mb,
        timeout_s=timeout_s,
    )
    with scratch_directory() as scratch:
        return asyncio.run(invoke(function, event, scratch))


async def invoke(function: Function, event: bytes, scratch: Path) -> Invocation:
    """A cold start and one invocation. Raises EmulatorMissingError or StartError."""
    response, error, used_mb = None, None, None
    environment = await ExecutionEnvironment.start(
        function, log=scratch / "invoke.log", temporary=scratch / "environment"
    )
    try:
        response = json.loads(await environment.invoke(event))
        used_mb = environment.peak_memory_mb()
    except FunctionError as failure:
        error = failure
    finally:
        await environment.stop()
    lines = lines_of(environment.log)
    report_lines = [report.line(function.memory_mb, used_mb) for report in reports(lines)]
    return Invocation(response, error, printed_by_function(lines) + report_lines)


def read_event(path: str) -> bytes:
    """The JSON of a file, or of standard input for `-`. Raises OperationError."""
    try:
        event = sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
        json.loads(event)
    except OSError as error:
        raise OperationError(f"event {path}: {error.strerror}") from error
    except ValueError as error:
        raise OperationError(f"event {path}: not JSON: {error}") from error
    return event
