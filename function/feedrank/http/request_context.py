"""What the service itself knows about the request that it is serving, in one typed place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from feedrank.domain import Call, Ranking

KEY = "feedrank.request"


@dataclass(slots=True)
class RequestContext:
    """The observer makes it, the endpoint and the error translator fill in the outcome, and the
    observer logs that. A middleware, a dependency or a router may read it."""

    call: Call
    log_fields: Mapping[str, Any]  # ids and `cold_start`, for each line that this request logs
    ranking: Ranking | None = None
    error: Exception | None = None
    route: str = ""  # its path; filled in where there is a middleware


def request_context(scope: Scope) -> RequestContext:
    context: RequestContext = scope[KEY]
    return context
