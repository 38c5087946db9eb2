"""What Lambda's context object tells about an invocation: its request id, and the time left.

A test, a notebook or a script passes no context, or one that lacks half of it. The request is
served all the same, under an id of our own and without Lambda's deadline.
"""

import uuid
from typing import TypeGuard

DAY_MS = 86_400_000.0
_NUMBER = int | float


def request_id_of(context: object) -> str:
    request_id = getattr(context, "aws_request_id", None)
    return request_id if is_id(request_id) else str(uuid.uuid4())


def time_left_ms(context: object) -> float | None:
    """Until Lambda ends the invocation, negative where that is past; None where it isn't known."""
    read = getattr(context, "get_remaining_time_in_millis", None)
    left_ms = read() if callable(read) else None
    if not isinstance(left_ms, _NUMBER) or left_ms != left_ms:  # noqa: PLR0124 NaN
        return None
    return max(-DAY_MS, min(left_ms, DAY_MS))  # what a clock can add and wait for


def is_id(value: object) -> TypeGuard[str]:
    """A string that a header and a log line can carry."""
    return type(value) is str and value != "" and value.isascii() and value.isprintable()
