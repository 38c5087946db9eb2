"""What the tests in containers compare with: the same function, without a container."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from containers import engine
from containers.sam import Handle
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.stack.build import build
from feedops.workspace import FUNCTION, PROJECT
from stack.transform import resolved, transformed


def pytest_sessionstart() -> None:
    if not engine.is_running():
        pytest.exit(engine.HOW_TO_GET_ONE, returncode=1)


@pytest.fixture(scope="session")
def variables() -> Mapping[str, str]:
    """The function's, as CloudFormation would set them."""
    function = resolved(transformed())["Resources"]["Function"]["Properties"]
    values: dict[str, str] = function["Environment"]["Variables"]
    return values


@pytest.fixture(scope="session")
def handle(
    variables: Mapping[str, str], demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Handle]:
    """The function's response to an event on the local Lambda runtime."""
    directory = tmp_path_factory.mktemp("environment")
    function = Function(FUNCTION, {**variables, "MODEL_URI": str(demo_bundle)}, timeout_s=60)
    with asyncio.Runner() as runner:
        start = ExecutionEnvironment.start(
            function, log=directory / "environment.log", temporary=directory / "tmp"
        )
        environment = runner.run(start)

        def handled(event: bytes) -> dict[str, Any]:
            response: dict[str, Any] = json.loads(runner.run(environment.invoke(event)))
            return response

        yield handled
        runner.run(environment.stop())


@pytest.fixture(scope="session")
def checkout(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `make build` leaves a checkout, as far as SAM's commands see it."""
    directory = tmp_path_factory.mktemp("checkout")
    shutil.copy(PROJECT / "samconfig.toml", directory)
    build(directory / ".aws-sam" / "build", demo_bundle)
    return directory
