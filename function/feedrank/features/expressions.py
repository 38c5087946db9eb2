"""Features of the moment. Training and serving both compute them here, so they can't differ.

Each function takes one request's values or whole columns of them: plain Python and NumPy
arithmetic treat both alike. Times are Unix seconds; hours and weekdays are UTC, or of a zone.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from feedrank.errors import InvalidRequestError

HOUR_S = 3_600
DAY_S = 86_400
THURSDAY = 3  # 1970-01-01; Monday is 0
SATURDAY = 5
QUARTER_S = 900
FIRST_S, LAST_S = -62_135_510_400, 253_402_214_400  # a day within the years 1 and 9999
QUARTERS_KEPT = 1_024
TIMESTAMP = "timestamp"
OFFSET = "offset"
FLOAT32_MAX = float(np.finfo(np.float32).max)

Values = Any  # of one request, or a column with one of each request
Compute = Callable[[Mapping[str, Values], Values], Values]


@dataclass(frozen=True, slots=True)
class ContextFeature:
    """`compute` takes the context and the time, of one request or as whole columns. `example` is
    the key that it reads, with a value that the key may have; None where it reads only the time.
    A key that `is_number` may have any finite number. What it computes is a number, or one text or
    a list of them, which a vocabulary makes numbers of."""

    compute: Compute
    example: tuple[str, str] | None = None
    reads: Literal["number", "text", "list"] = "number"
    is_number: bool = False

    @property
    def key(self) -> str | None:
        return self.example and self.example[0]


def hour(_context: Mapping[str, Any], time_s: Values) -> Values:
    """Hour of the day, 0-23."""
    return time_s // HOUR_S % 24


def weekday(_context: Mapping[str, Any], time_s: Values) -> Values:
    """Day of the week, Monday 0 to Sunday 6."""
    return (time_s // DAY_S + THURSDAY) % 7


def is_weekend(context: Mapping[str, Any], time_s: Values) -> Values:
    return (weekday(context, time_s) >= SATURDAY) * 1.0


def equals(key: str, literal: str) -> Compute:
    """1.0 where the context's `key` is `literal`, 0.0 where it isn't."""

    def feature(context: Mapping[str, Any], _time_s: Values) -> Values:
        return (context[key] == literal) * 1.0

    return feature


def number(key: str) -> Compute:
    """The context's `key` read as a finite number.

    Raises InvalidRequestError for anything else.
    """

    def feature(context: Mapping[str, Any], _time_s: Values) -> Values:
        try:
            value = np.asarray(context[key], dtype=np.float64)
        except ValueError as error:
            raise InvalidRequestError(f"context.{key} must be a number") from error
        if not (np.abs(value) <= FLOAT32_MAX).all():  # NaN and infinity fail this too
            raise InvalidRequestError(f"context.{key} must be a finite 32-bit number")
        return value

    return feature


def text(key: str) -> Compute:
    """The context's `key` as it is."""
    return lambda context, _time_s: context[key]


def texts(key: str) -> Compute:
    """The context's `key` as a list."""
    return lambda context, _time_s: listed(context[key])


def listed(text: str) -> list[str]:
    """What stands between its commas; an empty text is an empty list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def local(compute: Compute, zone: str) -> Compute:
    """The calendar of a zone, such as Europe/Berlin, or of the request's own timestamp: OFFSET."""

    def feature(context: Mapping[str, Any], time_s: Values) -> Values:
        shift_s = _own_offset_s(context) if zone == OFFSET else _offset_s(zone, time_s)
        return compute(context, time_s + shift_s)

    return feature


def _own_offset_s(context: Mapping[str, Any]) -> float:
    """Of the timestamp that the caller gave, 0 where it gave none or one without an offset."""
    stamp = context.get(TIMESTAMP)
    offset = datetime.fromisoformat(stamp).utcoffset() if stamp else None
    return (offset or timedelta()).total_seconds()


def _offset_s(zone: str, time_s: Values) -> Values:
    """From UTC, of a moment or of each of a column; no zone changes within a quarter of an hour."""
    if np.ndim(time_s) == 0:
        return _offset_at(zone, int(time_s // QUARTER_S))
    quarters, which = np.unique(np.asarray(time_s) // QUARTER_S, return_inverse=True)
    return np.array([_offset_at(zone, int(quarter)) for quarter in quarters])[which]


@lru_cache(maxsize=QUARTERS_KEPT)  # a caller may send any timestamp
def _offset_at(zone: str, quarter: int) -> float:
    from zoneinfo import ZoneInfo

    time_s = min(max(quarter * QUARTER_S, FIRST_S), LAST_S)
    offset = datetime.fromtimestamp(time_s, ZoneInfo(zone)).utcoffset()
    return (offset or timedelta()).total_seconds()


Expression = Callable[..., ContextFeature]  # from the arguments of an expression, as texts
BUILT_IN = ("hour", "weekday", "is_weekend", "equals", "number", "text", "list", "since")
CALENDAR: dict[str, Compute] = {"hour": hour, "weekday": weekday, "is_weekend": is_weekend}
# In quotes of either kind, or bare if it has no comma and no parenthesis.
_TEXT = r"""\s*(?:"([^"]*)"|'([^']*)'|([^\s,()"'][^,()]*?))\s*"""
_EQUALS = re.compile(rf"equals\({_TEXT},{_TEXT}\)")
_OF_KEY = re.compile(rf"(number|text|list)\({_TEXT}\)")
_LOCAL = re.compile(r"(hour|weekday|is_weekend)\(\s*([A-Za-z][\w+/-]*)\s*\)")
_CALL = re.compile(r"([^\W\d]\w*)(?:\((.*)\))?")
_ARGUMENT = re.compile(rf"{_TEXT}(?:,(?=.)|$)")
_registered: dict[str, Expression] = {}


def register(expressions: Mapping[str, Expression]) -> None:
    """Adds them to the expressions that this process's feature specs may use."""
    _registered.update(expressions)


def parse(expression: str) -> ContextFeature:
    """`hour`, `weekday`, `is_weekend`, each also of a zone, `equals(key, literal)`, `number(key)`,
    `text(key)`, `list(key)`, or one that is registered.

    Raises ValueError for any other expression, TypeError where a registered one gives no feature.
    """
    if expression in CALENDAR:
        return ContextFeature(CALENDAR[expression])
    if match := _LOCAL.fullmatch(expression):
        return ContextFeature(local(CALENDAR[match[1]], _zone(match[2])))
    if match := _EQUALS.fullmatch(expression):
        key, literal = _text(match, 1), _text(match, 4)
        if key:
            return ContextFeature(equals(key, literal), (key, literal))
    elif (match := _OF_KEY.fullmatch(expression)) and (key := _text(match, 2)):
        return _of_key(match[1], key)
    elif (match := _CALL.fullmatch(expression)) and match[1] in _registered:
        return _called(expression, match[1], _arguments(expression, match[2] or ""))
    raise ValueError(
        f"context expression {expression!r} is none of hour, weekday, is_weekend (or with a zone, "
        "as hour(Europe/Berlin) or hour(offset)), equals(key, literal), number(key), text(key), "
        "list(key); a key or literal with a "
        'comma, a parenthesis or a quote goes in quotes, such as equals(city, "Paris, TX")'
        f"; EXTENSIONS has {', '.join(_registered) or 'none'}"
    )


def _of_key(kind: str, key: str) -> ContextFeature:
    if kind == "text":
        return ContextFeature(text(key), (key, "a"), "text")
    if kind == "list":
        return ContextFeature(texts(key), (key, "a,b"), "list")
    return ContextFeature(number(key), (key, "1.5"), is_number=True)


def _zone(name: str) -> str:
    if name != OFFSET:
        from zoneinfo import ZoneInfo  # few specs have one

        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(f"{name!r} is no time zone, such as Europe/Berlin") from error
    return name


def _called(expression: str, name: str, arguments: list[str]) -> ContextFeature:
    try:
        feature = _registered[name](*arguments)
    except Exception as error:
        raise ValueError(f"context expression {expression!r}: {error}") from error
    if not isinstance(feature, ContextFeature):
        raise TypeError(f"context expression {expression!r}: {name} must give a ContextFeature")
    return feature


def _arguments(expression: str, text: str) -> list[str]:
    """The texts of a list such as `device, "a, b"`."""
    arguments, at = [], 0
    while at < len(text):
        match = _ARGUMENT.match(text, at)
        if match is None:
            raise ValueError(f"context expression {expression!r}: its arguments can't be read")
        arguments.append(_text(match, 1))
        at = match.end()
    return arguments


def _text(match: re.Match[str], group: int) -> str:
    """The text, whichever of the three ways it is written."""
    return match[group] or match[group + 1] or match[group + 2] or ""
