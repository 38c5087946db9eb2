import asyncio
from typing import Any

import pytest
from mangum.protocols import HTTPCycle
from mangum.types import Message, Receive, Scope, Send

import fakes
from feedrank.http.fast_path import LoopNeededError, StraightCycle
from feedrank.http.lambda_adapter import Adapter

EVENT: dict[str, Any] = {
    "version": "2.0",
    "rawPath": "/",
    "rawQueryString": "",
    "headers": {"host": "abc.example.com"},
    "requestContext": {
        "requestId": "r",
        "http": {"method": "POST", "path": "/here", "sourceIp": "192.0.2.1"},
    },
    "body": "héllo",
    "isBase64Encoded": False,
}


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with the request's body in two parts, and whether there was an event loop."""
    message: Message = await receive()
    headers = [(b"content-type", b"text/plain"), (b"x-loop", b"%d" % _has_loop())]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    half = len(message["body"]) // 2
    await send({"type": "http.response.body", "body": message["body"][:half], "more_body": True})
    await send({"type": "http.response.body", "body": message["body"][half:]})


async def _wait(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await asyncio.sleep(0)
    finally:
        scope["aws.event"]["ended"] = True
    await _echo(scope, receive, send)


@pytest.fixture(autouse=True)
def _loop() -> Any:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


def _adapter(app: Any, *, waits: bool) -> Adapter:
    return Adapter(app, ["text/"], HTTPCycle if waits else StraightCycle)


@pytest.mark.parametrize("waits", [True, False])
def test_the_response_is_the_same_with_a_loop_and_without(*, waits: bool) -> None:
    response = _adapter(_echo, waits=waits)(EVENT, fakes.LambdaContext())
    assert response == {
        "statusCode": 201,
        "headers": {"content-type": "text/plain", "x-loop": str(int(waits))},
        "body": "héllo",
        "isBase64Encoded": False,
    }


def test_a_request_that_waits_has_its_loop() -> None:
    assert _adapter(_wait, waits=True)(EVENT, None)["body"] == "héllo"


def test_a_straight_cycle_ends_a_request_that_waits() -> None:
    event = dict(EVENT)
    with pytest.raises(LoopNeededError):
        _adapter(_wait, waits=False)(event, None)
    assert event["ended"]


def test_what_goes_wrong_in_the_app_is_not_hidden() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _adapter(fail, waits=False)(EVENT, None)
