"""Features of the moment. Training and serving both compute them here, so they can't differ.

Each function takes one request's values or whole columns of them: plain Python and NumPy
arithmetic treat both alike. Times are Unix seconds; hours and weekdays are UTC.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from feedrank.errors import InvalidRequestError

HOUR_S = 3_600
DAY_S = 86_400
THURSDAY = 3  # 1970-01-01; Monday is 0
SATURDAY = 5
FLOAT32_MAX = float(np.finfo(np.float32).max)

Compute = Callable[[Mapping[str, Any], Any], Any]


@dataclass(frozen=True, slots=True)
class ContextFeature:
    """`compute` takes the context and the time; `example` is the key that it reads, with a value
    which it can read. The calendar's features read only the time."""

    compute: Compute
    example: tuple[str, str] | None = None

    @property
    def key(self) -> str | None:
        return self.example and self.example[0]


def hour(_context: Mapping[str, Any], time_s: Any) -> Any:  # noqa: ANN401 a scalar or a column
    """Hour of the day, 0-23."""
    return time_s // HOUR_S % 24


def weekday(_context: Mapping[str, Any], time_s: Any) -> Any:  # noqa: ANN401
    """Day of the week, Monday 0 to Sunday 6."""
    return (time_s // DAY_S + THURSDAY) % 7


def is_weekend(context: Mapping[str, Any], time_s: Any) -> Any:  # noqa: ANN401
    return (weekday(context, time_s) >= SATURDAY) * 1.0


def equals(key: str, literal: str) -> Compute:
    """1.0 where the context's `key` is `literal`, 0.0 where it isn't."""

    def feature(context: Mapping[str, Any], _time_s: Any) -> Any:  # noqa: ANN401
        return (context[key] == literal) * 1.0

    return feature


def number(key: str) -> Compute:
    """The context's `key` read as a finite number.

    Raises InvalidRequestError for anything else.
    """

    def feature(context: Mapping[str, Any], _time_s: Any) -> Any:  # noqa: ANN401
        try:
            value = np.asarray(context[key], dtype=np.float64)
        except ValueError as error:
            raise InvalidRequestError(f"context.{key} must be a number") from error
        if not (np.abs(value) <= FLOAT32_MAX).all():  # NaN and infinity fail this too
            raise InvalidRequestError(f"context.{key} must be a finite 32-bit number")
        return value

    return feature


CALENDAR: dict[str, Compute] = {"hour": hour, "weekday": weekday, "is_weekend": is_weekend}
# In quotes of either kind, or as it stands where it holds no comma and no parenthesis.
_TEXT = r"""\s*(?:"([^"]*)"|'([^']*)'|([^\s,()"'][^,()]*?))\s*"""
_EQUALS = re.compile(rf"equals\({_TEXT},{_TEXT}\)")
_NUMBER = re.compile(rf"number\({_TEXT}\)")


def parse(expression: str) -> ContextFeature:
    """`hour`, `weekday`, `is_weekend`, `equals(key, literal)` or `number(key)`.

    Raises ValueError for any other expression.
    """
    if expression in CALENDAR:
        return ContextFeature(CALENDAR[expression])
    if match := _EQUALS.fullmatch(expression):
        key, literal = _text(match, 1), _text(match, 4)
        if key:
            return ContextFeature(equals(key, literal), (key, literal))
    elif (match := _NUMBER.fullmatch(expression)) and (key := _text(match, 1)):
        return ContextFeature(number(key), (key, "1.5"))
    raise ValueError(
        f"context expression {expression!r} is none of "
        "hour, weekday, is_weekend, equals(key, literal), number(key); a key or literal with a "
        'comma, a parenthesis or a quote goes in quotes, such as equals(city, "Paris, TX")'
    )


def _text(match: re.Match[str], group: int) -> str:
    """What one of the three ways to write a text holds."""
    return match[group] or match[group + 1] or match[group + 2] or ""
