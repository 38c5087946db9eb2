"""Lifespans of a team's routers: a web server runs them by itself, on Lambda the adapter does."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

import fakes
from feedops.local import gateway
from feedrank import snapstart
from feedrank.errors import SettingsError

POOLS = """
import asyncio
from contextlib import asynccontextmanager
from fastapi import APIRouter, Request

events = []

def with_pool(router, name):
    @asynccontextmanager
    async def lifespan(app):
        events.append(f"{name} opened")
        await asyncio.sleep(0)  # needs an event loop
        yield {name: id(asyncio.get_running_loop())}
        events.append(f"{name} closed")
    router.lifespan_context = lifespan
    return router

first, second, inner = APIRouter(), APIRouter(), APIRouter()

@inner.get("/pools")
async def pools(request: Request):
    loop = id(asyncio.get_running_loop())
    return [request.state.first == loop, request.state.second == loop]

second.include_router(with_pool(inner, "second"))
ROUTERS = [with_pool(first, "first"), second]
"""
FAILING = """
from contextlib import asynccontextmanager
from fastapi import APIRouter

@asynccontextmanager
async def lifespan(app):
    raise ConnectionRefusedError("the pool's database is down")
    yield

ROUTERS = [APIRouter(lifespan=lifespan)]
"""
OPENED, CLOSED = ["first opened", "second opened"], ["second closed", "first closed"]
ON_LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "feedrank"}


@contextmanager
def _container(directory: Path, text: str, **env: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        (directory / "pools.py").write_text(text)
        patch.syspath_prepend(directory)
        patch.delitem(sys.modules, "pools", raising=False)
        with fakes.container(MODEL_URI="/nowhere", EXTENSIONS="pools", **env) as handler:
            yield handler


def _pools(handler: ModuleType) -> Any:
    """Whether each pool was opened on the loop of the request."""
    event = json.loads(gateway.example_event("GET", "/pools"))
    response = handler.lambda_handler(event, fakes.LambdaContext())
    assert response["statusCode"] == 200, response["body"]
    return json.loads(response["body"])


def test_on_lambda_each_is_started_once_and_in_order_on_the_loop_of_the_requests(
    tmp_path: Path,
) -> None:
    with _container(tmp_path, POOLS, **ON_LAMBDA) as handler:
        events = sys.modules["pools"].events
        assert events == OPENED
        assert [_pools(handler), _pools(handler)] == [[True, True]] * 2
        assert events == OPENED
        handler._adapter.stop()
        assert events == OPENED + CLOSED


def test_around_a_snapshot_each_is_stopped_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _container(tmp_path, POOLS, **ON_LAMBDA) as handler:
        monkeypatch.setattr(handler.slot, "load_or_raise", lambda: None)
        snapstart.before_snapshot(handler.slot, handler._adapter)
        assert sys.modules["pools"].events == OPENED + CLOSED
        fakes.restore(handler)
        assert sys.modules["pools"].events == OPENED + CLOSED + OPENED
        assert _pools(handler) == [True, True]
        handler._adapter.stop()
        asyncio.get_event_loop().close()


def test_a_startup_that_fails_ends_the_init_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match=r"(?s)^EXTENSIONS: .*the pool's database is down"),
        _container(tmp_path, FAILING, **ON_LAMBDA),
    ):
        pass


def test_under_a_web_server_only_the_server_starts_them(tmp_path: Path) -> None:
    with _container(tmp_path, POOLS) as handler:
        events = sys.modules["pools"].events
        assert events == []
        with TestClient(handler.app()) as client:
            assert client.get("/pools").json() == [True, True]
            assert events == OPENED
        assert events == OPENED + CLOSED
