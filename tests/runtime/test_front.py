"""Unusual requests, which no client library sends, through front, emulator and handler."""

import asyncio
import json
from pathlib import Path

import pytest

from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.local.front import Front, serving
from feedops.local.processes import LOCALHOST, reserve
from feedops.workspace import FUNCTION

BODY = b'{"user_id": 42, "item_ids": [17, 256, 3]}'
LINES = [
    *(b"%s: Jos\xe9" % name for name in (b"x", b"user-agent", b"cookie", b"x-amzn-trace-id")),
    *(b"%s: \xff\xfe\x80" % name for name in (b"accept", b"x-forwarded-for", b"referer")),
    b"content-type: application/json; charset=\xe9",
    b"x: \xed\xb3\xa9",
    "x: Sr\u012bperumb\u016bd\u016br".encode(),
    b"X-oDD: 1\r\nx-Odd: \xe9",
    b"x: " + b"a" * 9_000,
]
TARGETS = [
    b"/predict?x=%ff&x=%c3%28",
    b"/predict?;&&=&a&=b&%&c?d",
    b"/predict?" + b"a" * 9_000,
    b"/predic%74",
]


@pytest.fixture(scope="module")
def responses(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, bytes]:
    """The response to each request, by the request's head."""
    directory = tmp_path_factory.mktemp("front")
    targets = {b"POST %s HTTP/1.1\r\nHost: a" % target for target in TARGETS}
    heads = targets | {b"POST /predict HTTP/1.1\r\nHost: a\r\n%s" % line for line in LINES}
    heads.add(b"POST /predict HTTP/1.1\r\nHost: Jos\xe9")

    async def send_all() -> dict[bytes, bytes]:
        environment = await ExecutionEnvironment.start(
            Function(FUNCTION, {"MODEL_URI": str(demo_bundle)}, timeout_s=60),
            log=directory / "environment.log",
            temporary=directory / "tmp",
        )
        try:
            with reserve(LOCALHOST, 0) as bound:
                async with serving(Front(environment.invoke), bound):
                    return {head: await exchange(bound.getsockname(), head) for head in heads}
        finally:
            await environment.stop()

    return asyncio.run(send_all())


async def exchange(address: tuple[str, int], head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    length = b"content-length: %d\r\nconnection: close" % len(BODY)
    writer.write(b"%s\r\n%s\r\n\r\n%s" % (head, length, BODY))
    response = await reader.read()
    writer.close()
    return response


def test_a_request_with_an_unusual_header_or_query_is_ranked(responses: dict[bytes, bytes]) -> None:
    unranked = {
        head: response[:200]
        for head, response in responses.items()
        if not response.startswith(b"HTTP/1.1 200 ")
        or len(json.loads(response.partition(b"\r\n\r\n")[2])["predictions"]) != 3
    }
    assert unranked == {}


def test_what_the_front_refuses_itself_it_does_not_echo() -> None:
    """aiohttp's application repeats an unknown Expect, also of a target that has no route."""

    async def invoke(_: bytes) -> bytes:
        raise AssertionError("it reached the function")

    async def send(head: bytes) -> bytes:
        with reserve(LOCALHOST, 0) as bound:
            async with serving(Front(invoke), bound):
                return await exchange(bound.getsockname(), head)

    for target, status in ((b"/predict", b"417"), (b"*", b"400")):
        head = b"OPTIONS %s HTTP/1.1\r\nHost: a\r\nExpect: SECRET" % target
        response = asyncio.run(send(head))
        assert response.startswith(b"HTTP/1.1 %s " % status)
        assert b"apigw-requestid" in response.lower()
        assert b"SECRET" not in response
