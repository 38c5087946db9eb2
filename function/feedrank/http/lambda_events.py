"""Events that are no request: pings, damaged events of an API, events of other services."""

from typing import Any, Literal

from feedrank.bundle.documents import Json
from feedrank.errors import MalformedEventError, UnservedEventError
from feedrank.http.invocation import request_id_of
from feedrank.http.problems import PROBLEM_JSON, problem_body
from feedrank.telemetry.metrics import log_request

PING = {"warm": True}
SCHEDULERS = ("aws.events", "aws.scheduler")  # a rule with a schedule, EventBridge Scheduler
AUTHORIZERS = ("methodArn", "routeArn")  # an authorizer's event is a request in all else
Kind = Literal["http", "rest", "alb"]


def is_ping(event: Json) -> bool:
    """`{"warm": true}`, or a schedule's event that was given no input of its own."""
    if not isinstance(event, dict):
        return False
    scheduled = event.get("source") in SCHEDULERS and event.get("detail-type") == "Scheduled Event"
    return scheduled or event == PING


def response_to_unread(event: Json, context: object, error: Exception) -> dict[str, Any]:
    """The response to an event from which no request can be made. Raises UnservedEventError."""
    if is_ping(event):
        return dict(PING)
    kind = kind_of(event)
    if kind is None:
        raise UnservedEventError from None
    request_id = request_id_of(context)
    title, status = MalformedEventError.title, MalformedEventError.status
    fields = {"request_id": request_id, "route": "none", "status": status, "kind": kind}
    names = {"error": MalformedEventError.__name__, "reason": type(error).__name__}
    log_request(fields | names, {})
    headers = {"content-type": PROBLEM_JSON, "x-request-id": request_id}
    lists = {name: [value] for name, value in headers.items()}
    response = {
        "statusCode": status,
        "body": problem_body(status, title, title, request_id).decode(),
        "isBase64Encoded": False,
    }
    if kind == "alb":  # takes one form or the other, depending on its target group
        return response | (
            {"multiValueHeaders": lists} if "multiValueHeaders" in event else {"headers": headers}
        )
    return response | {"headers": headers} | ({"multiValueHeaders": {}} if kind == "rest" else {})


def kind_of(event: Json) -> Kind | None:
    """By fields that only this kind of event has, several of them, so that no one damage hides it:
    `http` is an HTTP API's or Function URL's (payload 2.0), `rest` a REST API's (payload 1.0)."""
    if not isinstance(event, dict) or any(name in event for name in AUTHORIZERS):
        return None
    if "rawPath" in event or "rawQueryString" in event:
        return "http"
    if "resource" in event and ("httpMethod" in event or "path" in event):
        return "rest"
    caller = event.get("requestContext")
    if isinstance(caller, dict) and "elb" in caller:
        return "alb"
    if "httpMethod" in event and "path" in event:
        return "rest" if isinstance(caller, dict) and "stage" in caller else "alb"
    return None
