"""What comes to the function and is no request: pings, damaged API events, events of others."""

from typing import Any, Literal

from feedrank.errors import MalformedEventError, UnservedEventError
from feedrank.http.invocation import request_id_of
from feedrank.http.problems import PROBLEM_JSON, problem_body
from feedrank.telemetry.metrics import log_request

PING = {"warm": True}
SCHEDULERS = ("aws.events", "aws.scheduler")  # a rule with a schedule, EventBridge Scheduler
AUTHORIZERS = ("methodArn", "routeArn")  # what an authorizer is sent else looks like a request
Kind = Literal["http", "rest", "alb"]


def is_ping(event: Any) -> bool:  # noqa: ANN401 whatever somebody sends
    """`{"warm": true}`, or what a schedule sends where it was given no input of its own."""
    if not isinstance(event, dict):
        return False
    scheduled = event.get("source") in SCHEDULERS and event.get("detail-type") == "Scheduled Event"
    return scheduled or event == PING


def answer_to_unread(event: Any, context: Any, error: Exception) -> dict[str, Any]:  # noqa: ANN401
    """What an event gets from which no request can be made. Raises UnservedEventError."""
    if is_ping(event):
        return dict(PING)
    kind = kind_of(event)
    if kind is None:
        raise UnservedEventError from None
    request_id = request_id_of(context)
    title, status = MalformedEventError.title, MalformedEventError.status
    fields = {"request_id": request_id, "route": "none", "status": status, "kind": kind}
    named = {"error": MalformedEventError.__name__, "reason": type(error).__name__}
    log_request(fields | named, {})
    headers = {"content-type": PROBLEM_JSON, "x-request-id": request_id}
    several = {name: [value] for name, value in headers.items()}
    answer = {
        "statusCode": status,
        "body": problem_body(status, title, title, request_id).decode(),
        "isBase64Encoded": False,
    }
    if kind == "alb":  # takes the one form or the other, as its target group is set
        return answer | (
            {"multiValueHeaders": several} if "multiValueHeaders" in event else {"headers": headers}
        )
    return answer | {"headers": headers} | ({"multiValueHeaders": {}} if kind == "rest" else {})


def kind_of(event: Any) -> Kind | None:  # noqa: ANN401
    """By what only that kind of event has, and by enough of it that no one damage hides it: `http`
    is an HTTP API's or Function URL's (payload 2.0), `rest` a REST API's (payload 1.0)."""
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
