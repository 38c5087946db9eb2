"""JSON that somebody else wrote, read field by field: what no rule names is refused.

A rule takes a value and its place, and gives back what may be used. It raises BundleError that
names the place.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from feedrank.errors import BundleError

Rule = Callable[[Any, str], Any]
LONGEST_TEXT = 10_000  # characters
SHOWN_OF_A_KEY = 40  # characters
LARGEST = sys.float_info.max


def read(raw: bytes, place: str, rule: Rule) -> Any:  # noqa: ANN401 what the rule makes of it
    """Strict JSON in UTF-8: no key twice in an object, no NaN, no infinity."""
    try:
        data = json.loads(
            raw.decode(), object_pairs_hook=_without_doubles, parse_constant=_no_constant
        )
        orjson.dumps(data)  # half a character, or a number beyond 64 bits, could not be told on
        return rule(data, f"{place}: ")
    except TypeError as error:
        raise BundleError(f"{place}: not JSON: {error}") from error
    except ValueError as error:
        raise BundleError(f"{place}: not JSON: {error}") from error
    except RecursionError as error:
        raise BundleError(f"{place}: nested too deeply") from error


def wrong(place: str, reason: str) -> BundleError:
    return BundleError(f"{place}{'' if place.endswith(': ') else ': '}{reason}")


def text(pattern: str = r"[^\x00-\x1f\x7f]*", longest: int = LONGEST_TEXT) -> Rule:
    matches = re.compile(pattern).fullmatch

    def rule(value: Any, place: str) -> str:  # noqa: ANN401
        if not isinstance(value, str) or len(value) > longest or not matches(value):
            raise wrong(place, f"must be a text of at most {longest} characters, {pattern}")
        return value

    return rule


def whole(least: int, most: int) -> Rule:
    def rule(value: Any, place: str) -> int:  # noqa: ANN401
        if type(value) is not int or not least <= value <= most:
            raise wrong(place, f"must be a whole number from {least} to {most}")
        return value

    return rule


def number(least: float = -math.inf, most: float = math.inf) -> Rule:
    def rule(value: Any, place: str) -> float:  # noqa: ANN401
        if type(value) not in {int, float} or not abs(value) <= LARGEST:
            raise wrong(place, "must be a finite number")
        if not least <= value <= most:
            raise wrong(place, f"must be a number from {least} to {most}")
        return float(value)

    return rule


def flag(value: Any, place: str) -> bool:  # noqa: ANN401
    if not isinstance(value, bool):
        raise wrong(place, "must be true or false")
    return value


def one_of(*values: str | int) -> Rule:
    def rule(value: Any, place: str) -> Any:  # noqa: ANN401
        if type(value) is bool or value not in values:
            raise wrong(place, f"must be {' or '.join(map(repr, values))}")
        return value

    return rule


def or_null(rule: Rule) -> Rule:
    return lambda value, place: None if value is None else rule(value, place)


def anything(value: Any, place: str) -> Any:  # noqa: ANN401, ARG001
    return value


def many(rule: Rule, least: int = 0, most: int = 1_000_000) -> Rule:
    def all_of(value: Any, place: str) -> list[Any]:  # noqa: ANN401
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise wrong(place, f"must be a list of {least} to {most}")
        return [rule(each, f"{place}[{at}]") for at, each in enumerate(value)]

    return all_of


def mapping(key: Rule, rule: Rule) -> Rule:
    def all_of(value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401
        return {
            key(name, _below(place, f"the key {_shown(name)}")): rule(
                each, _below(place, _shown(name))
            )
            for name, each in _object(value, place).items()
        }

    return all_of


def fields(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    rules = {**required, **(optional or {})}

    def all_of(value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401
        found = _object(value, place)
        if unknown := found.keys() - rules.keys():
            raise wrong(place, f"unknown key {_shown(min(unknown))}")
        if missing := required.keys() - found.keys():
            raise wrong(place, f"lacks {min(missing)}")
        return {name: rules[name](each, _below(place, name)) for name, each in found.items()}

    return all_of


def variant(kinds: Mapping[str, Rule]) -> Rule:
    """An object with exactly one key, which says what the value is."""
    rule = fields({}, kinds)

    def one(value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401
        if len(_object(value, place)) != 1:
            raise wrong(place, "must have exactly one key")
        found: dict[str, Any] = rule(value, place)
        return found

    return one


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(place, "must be an object")
    return value


def _below(place: str, part: str) -> str:
    return place + part if place.endswith(": ") else f"{place}.{part}"


def _shown(name: str) -> str:
    return (
        name if name.isidentifier() and len(name) <= SHOWN_OF_A_KEY else repr(name[:SHOWN_OF_A_KEY])
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"an object has the key {_shown(name)} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
