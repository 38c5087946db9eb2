"""The response to a request whose inference nobody can stop, on Lambda.

The only thread that serves requests is in that inference until the process ends. So the response is
posted to Lambda from another thread, with the request of the runtime API that the runtime client
would have made: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-response
"""

from copy import copy

import orjson
from mangum.types import Response
from starlette.types import Receive, Scope, Send

from feedrank.errors import DeadlineExceededError
from feedrank.http.fast_path import StraightCycle
from feedrank.http.lambda_adapter import Adapter
from feedrank.http.observer import Observer
from feedrank.http.problems import problem
from feedrank.http.web import Request
from feedrank.model.inference import TIMED_OUT
from feedrank.settings import runtime_api

PATH = "/2018-06-01/runtime/invocation/{}/response"
TIMEOUT_S = 1.0
ACCEPTED = 202


def post(adapter: Adapter, observer: Observer) -> None:
    """The 504 to the request in progress, also in its log line and its metrics. Headers of a
    middleware are missing. Raises OSError or HTTPException."""
    if adapter.in_progress is None:
        return
    event, scope = adapter.in_progress
    body = orjson.dumps(event(_response(scope, observer)))
    _send(scope["aws.context"].aws_request_id, body)


def _response(scope: Scope, observer: Observer) -> Response:
    timing_out = copy(observer)
    timing_out.app = _timed_out
    return StraightCycle(scope, b"")(timing_out)


async def _timed_out(scope: Scope, receive: Receive, send: Send) -> None:
    response = await problem(Request(scope), DeadlineExceededError(TIMED_OUT))
    await response(scope, receive, send)


def _send(request_id: str, body: bytes) -> None:
    from http.client import HTTPConnection, HTTPException  # which no other request needs

    connection = HTTPConnection(runtime_api(), timeout=TIMEOUT_S)
    connection.request("POST", PATH.format(request_id), body, {"content-type": "application/json"})
    status = connection.getresponse().status
    if status != ACCEPTED:
        raise HTTPException(f"Lambda's runtime API responded with {status}")
