"""A connection that has just been made has its time before anything is sent."""

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from feedrank.server import HEAD_S, BoundedProtocol


class FakeTransport(asyncio.Transport):
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def _due_in_s() -> float:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = Config(app, lifespan="off")
    config.load()
    protocol = BoundedProtocol(config, ServerState(), {})
    protocol.connection_made(FakeTransport())
    left_s: float = protocol._due_s - protocol.loop.time()
    protocol.connection_lost(None)
    return left_s


def test_a_new_connection_has_as_long_as_a_head_may_take() -> None:
    assert HEAD_S / 2 < asyncio.run(_due_in_s()) <= HEAD_S
