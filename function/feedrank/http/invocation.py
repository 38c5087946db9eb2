"""What Lambda tells beside the event: whose request it is, and how long there is for it.

A test, a notebook or a script gives no context, or one that lacks half of it. That is served as
well, under an id of our own and without a deadline of Lambda's.
"""

import uuid
from typing import Any, TypeGuard

DAY_MS = 86_400_000.0
_NUMBER = int | float


def request_id_of(context: Any) -> str:  # noqa: ANN401 whatever the caller gave
    found = getattr(context, "aws_request_id", None)
    return found if is_id(found) else str(uuid.uuid4())


def time_left_ms(context: Any) -> float | None:  # noqa: ANN401 whatever the caller gave
    """Until Lambda ends the invocation, below zero where it is late; None where nothing tells."""
    read = getattr(context, "get_remaining_time_in_millis", None)
    left = read() if callable(read) else None
    if not isinstance(left, _NUMBER) or left != left:  # noqa: PLR0124 NaN
        return None
    return max(-DAY_MS, min(left, DAY_MS))  # what a clock can add and wait for


def is_id(found: object) -> TypeGuard[str]:
    """A text that a header and a log line can carry."""
    return type(found) is str and found != "" and found.isascii() and found.isprintable()
