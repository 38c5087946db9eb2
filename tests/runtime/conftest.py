"""Fixtures of the tests that use the real emulator."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedops.local.emulator import Function

TIMEOUT_S = 20  # only reached by what hangs


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def standin() -> Function:
    """A function whose events say what it does, see standin/handler.py."""
    return Function(Path(__file__).parent / "standin", timeout_s=TIMEOUT_S)


@pytest.fixture
def impatient(standin: Function) -> Function:
    """The stand-in with a timeout that a test can wait for, and a busy machine can start in."""
    return replace(standin, timeout_s=5)


@pytest.fixture
def event() -> Callable[..., bytes]:
    """`event("sleep", seconds=1)` is the event that makes the stand-in sleep."""

    def make(do: str, body: object = None, **query: object) -> bytes:
        parameters = {"do": do} | {name: str(value) for name, value in query.items()}
        content: dict[str, Any] = {"queryStringParameters": parameters, "body": json.dumps(body)}
        return json.dumps(content).encode()

    return make
