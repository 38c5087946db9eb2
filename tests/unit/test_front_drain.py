"""The local front ends in a bounded time, whoever is still sending or waiting."""

import asyncio

import pytest

from feedops.local import front
from feedops.local.processes import LOCALHOST, reserve

UPLOAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
REQUEST = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


async def _hang(_event: bytes) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def _close_with_both_open() -> list[bytes]:
    bound = reserve(LOCALHOST, 0)
    readers, writers = [], []
    async with front.serving(front.Front(_hang), bound):
        for sent in (UPLOAD, REQUEST):
            reader, writer = await asyncio.open_connection(*bound.getsockname())
            writer.write(sent)
            await writer.drain()
            readers.append(reader)
            writers.append(writer)
    responses = [await reader.read() for reader in readers]
    for writer in writers:
        writer.close()
    return responses


def test_a_stalled_upload_and_a_hanging_function_do_not_keep_the_front(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(front, "DRAIN_S", 0.1)
    assert asyncio.run(asyncio.wait_for(_close_with_both_open(), 60)) == [b"", b""]
