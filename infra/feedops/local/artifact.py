"""The function as it was built, and as it is in the checkout, ready to be run."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from feedops.errors import BuildError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.stack.build import BUILD, find_python, runtime_packages
from feedops.workspace import FUNCTION

INIT_TIMEOUT_S = 60  # the machine may be busy


def checkout(bundle: Path) -> Function:
    return Function(FUNCTION, {"MODEL_URI": str(bundle)}, timeout_s=INIT_TIMEOUT_S)


def built_artifact(bundle: Path, build: Path = BUILD) -> Function:
    """Raises BuildError where there is none of the code as it is now, or no Python to run it."""
    layer, function = build / "RuntimeLayer" / "python", build / "Function"
    if not layer.is_dir():
        raise BuildError("nothing is built: `make build`")
    if not is_current(function):
        raise BuildError("the built artifact is of other code: `make build`")
    python = find_python(os.environ)
    return replace(checkout(bundle), task_root=function, layers=(layer,), python=python)


def is_current(built: Path, source: Path = FUNCTION) -> bool:
    """Whether an artifact was built from the code as it is now."""
    built_files, files = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.py")}
        for root in (built, source)
    )
    return built_files == files


def with_variables(function: Function, **variables: str) -> Function:
    return replace(function, variables={**function.variables, **variables})


@asynccontextmanager
async def in_emulator(function: Function, directory: Path) -> AsyncIterator[ExecutionEnvironment]:
    """The function in the emulator, with what Lambda provides where its Python has none of it.
    `directory` gets its log and its /tmp."""
    if function.python != Path(sys.executable):
        client = runtime_packages(function.python)
        function = replace(function, layers=(*function.layers, client))
    log = directory / "environment.log"
    log.unlink(missing_ok=True)
    environment = await ExecutionEnvironment.start(
        function, log=log, temporary=directory / "environment"
    )
    try:
        yield environment
    finally:
        await environment.stop()
