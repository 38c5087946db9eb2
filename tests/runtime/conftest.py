"""What the tests through the real emulator share."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedops.local.emulator import Function

TIMEOUT_S = 20  # nothing here takes as long, unless it hangs


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def standin() -> Function:
    """The function that does as its event says, see standin/handler.py."""
    return Function(Path(__file__).parent / "standin", timeout_s=TIMEOUT_S)


@pytest.fixture
def impatient(standin: Function) -> Function:
    """The stand-in with a timeout to be waited for, but enough to start on a busy machine."""
    return replace(standin, timeout_s=5)


@pytest.fixture
def event() -> Callable[..., bytes]:
    """`event("sleep", seconds=1)` is the event that makes the stand-in sleep."""

    def make(do: str, body: object = None, **query: object) -> bytes:
        parameters = {"do": do} | {name: str(value) for name, value in query.items()}
        made: dict[str, Any] = {"queryStringParameters": parameters, "body": json.dumps(body)}
        return json.dumps(made).encode()

    return make
