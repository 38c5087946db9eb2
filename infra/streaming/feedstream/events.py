"""A message's event, checked: what can't be counted is refused."""

import json
import time
from typing import Any, get_args

from feedmodel.demo.counts import Event, Kind
from feedrank.domain import MAX_ID
from feedrank.features.spec import Ids
from feedrank.features.vocabulary import text_key

MAX_ID_LENGTH = 256  # characters of an event's id
MAX_AHEAD_S = 3_600.0  # of the clock here; serving refuses a row whose time is a day ahead
MAX_BEHIND_S = 10 * 365 * 86_400.0  # a user's row has a bit for each day from the first on
MAX_DWELL_MS = 86_400_000
KEYS = {"event_id", "event", "user_id", "item_id", "time", "dwell_ms"}


class EventError(ValueError):
    """The text names the key, and has nothing of the message."""


def parse_event(body: str | bytes, ids: Ids) -> Event:
    """Raises EventError."""
    data = _json(body)
    kind: Any = data.get("event")
    _check(kind in get_args(Kind), f"event must be one of {', '.join(get_args(Kind))}")
    _check(data.keys() <= KEYS, f"there are no keys beside {', '.join(sorted(KEYS))}")
    event_id: Any = data.get("event_id")
    _check(
        isinstance(event_id, str) and 0 < len(event_id) <= MAX_ID_LENGTH,
        f"event_id must be a text of 1 to {MAX_ID_LENGTH} characters",
    )
    time_s = _time(data.get("time"), kind)
    item, user, dwell_ms = _key(data, "item_id", ids), 0, data.get("dwell_ms", 0)
    if kind == "created":
        _check("user_id" not in data, "created has no user_id")
    else:
        user = _key(data, "user_id", ids)
    _check(
        type(dwell_ms) is int and 0 <= dwell_ms <= (MAX_DWELL_MS if kind == "click" else 0),
        f"dwell_ms must be a whole number up to {MAX_DWELL_MS}, of a click",
    )
    return Event(event_id, kind, item, time_s, user, dwell_ms)


def _time(time_s: Any, kind: Kind) -> float:  # noqa: ANN401 JSON
    now_s = time.time()
    first_s = 0.0 if kind == "created" else now_s - MAX_BEHIND_S
    _check(
        type(time_s) in (int, float) and first_s <= time_s <= now_s + MAX_AHEAD_S,  # NaN is not
        "time must be Unix seconds, of the last ten years and not in the future",
    )
    return float(time_s)


def _json(body: str | bytes) -> Any:  # noqa: ANN401 JSON
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EventError("it is no JSON") from error
    _check(isinstance(data, dict), "it is no JSON object")
    return data


def _key(data: dict[str, Any], name: str, ids: Ids) -> int:
    """What tables find an id by."""
    id_: Any = data.get(name)
    if ids == "text":
        _check(isinstance(id_, str) and id_ != "", f"{name} must be a text")
        try:
            return text_key(id_)
        except UnicodeEncodeError as error:
            raise EventError(f"{name} is no Unicode") from error
    _check(type(id_) is int and 0 <= id_ <= MAX_ID, f"{name} must be a whole number")
    return int(id_)


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 what is checked, as of assert
    if not holds:
        raise EventError(otherwise)
