"""`feedrank invoke`: one event through the real runtime, as `sam local invoke` does it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedops.errors import FunctionError, OperationError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.local.report import printed_by_function, reports

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Invocation:
    """`answer` is what the function returned; `error` says why it returned nothing.

    `log` is what it printed, and its report, as Lambda writes both.
    """

    answer: Any
    error: FunctionError | None
    log: list[str]


async def invoke(function: Function, event: bytes, scratch: Path) -> Invocation:
    """A cold start and one invocation. Raises EmulatorMissingError or StartError."""
    answer, error, used_mb = None, None, None
    environment = await ExecutionEnvironment.start(
        function, log=scratch / "invoke.log", temporary=scratch / "environment"
    )
    try:
        answer = json.loads(await environment.invoke(event))
        used_mb = environment.peak_memory_mb()
    except FunctionError as failed:
        error = failed
    finally:
        await environment.stop()
    lines = environment.log.read_text(errors="replace").splitlines()
    endings = [report.line(function.memory_mb, used_mb) for report in reports(lines)]
    return Invocation(answer, error, printed_by_function(lines) + endings)


def read_event(path: str) -> bytes:
    """A file's JSON, or standard input's. Raises OperationError that says what is wrong with it."""
    try:
        event = sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
        json.loads(event)
    except OSError as error:
        raise OperationError(f"event {path}: {error.strerror}") from error
    except ValueError as error:
        raise OperationError(f"event {path}: not JSON: {error}") from error
    return event
