"""Times as the manifest holds them: UTC in ISO 8601, to the second."""

import os
from datetime import UTC, datetime

from feedmodel.errors import PublishError

EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"  # for reproducible builds: seconds since 1970
EXAMPLE = "2026-11-24T00:00:00Z"


def to_moment(when: datetime) -> str:
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def from_milliseconds(timestamp_ms: int) -> str:
    return to_moment(datetime.fromtimestamp(timestamp_ms // 1_000, UTC))


def parse_moment(text: str, source: str) -> str:
    """From any ISO 8601 time with a zone. Raises PublishError that starts with `source`, the name
    of the option or tag that holds the text."""
    try:
        when = datetime.fromisoformat(text)
        moment = to_moment(when)
    except (ValueError, OverflowError) as error:  # OverflowError: before the year 1 in UTC
        raise PublishError(f"{source}: {text!r} is no ISO 8601 time, such as {EXAMPLE}") from error
    if when.tzinfo is None:
        raise PublishError(f"{source}: {text!r} has no time zone; write it as {EXAMPLE}")
    return moment


def parse_past(text: str, source: str) -> str:
    """The same, and not in the future: tables of next year would never be stale."""
    moment = parse_moment(text, source)
    if datetime.fromisoformat(moment) > datetime.now(UTC):
        raise PublishError(
            f"{source}: {moment} lies in the future; give the time at which the tables were read"
        )
    return moment


def now() -> str:
    """SOURCE_DATE_EPOCH if it is set, else the clock. Raises PublishError where it is no time."""
    epoch = os.environ.get(EPOCH_VARIABLE)
    if not epoch:
        return to_moment(datetime.now(UTC))
    try:
        return to_moment(datetime.fromtimestamp(int(epoch), UTC))
    except (ValueError, OverflowError, OSError) as error:
        raise PublishError(
            f"{EPOCH_VARIABLE}: {epoch!r} is not a number of seconds since 1970; correct it or "
            "unset it"
        ) from error
