"""Reads JSON of a bundle by rules, and refuses what no rule allows.

A rule gets a value and its place in the document, and returns the value to use. It raises
BundleError that names the place.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from feedrank.errors import BundleError

Json = Any  # a parsed value, before or after its check
Rule = Callable[[Json, str], Json]
MAX_TEXT_LENGTH = 10_000  # characters
MAX_KEY_IN_MESSAGE = 40  # characters
MAX_NUMBER = sys.float_info.max


def read(raw: bytes, place: str, rule: Rule) -> Json:
    """Strict JSON in UTF-8: no key twice in an object, no NaN, no infinity."""
    try:
        data = json.loads(
            raw.decode(), object_pairs_hook=without_duplicates, parse_constant=_no_constant
        )
        orjson.dumps(data)  # refuses lone surrogates and whole numbers beyond 64 bits
        return rule(data, f"{place}: ")
    except TypeError as error:
        raise BundleError(f"{place}: not JSON: {error}") from error
    except ValueError as error:
        raise BundleError(f"{place}: not JSON: {error}") from error
    except RecursionError as error:
        raise BundleError(f"{place}: nested too deeply") from error


def wrong(place: str, reason: str) -> BundleError:
    return BundleError(f"{place}{'' if place.endswith(': ') else ': '}{reason}")


def text(pattern: str = r"[^\x00-\x1f\x7f]*", max_length: int = MAX_TEXT_LENGTH) -> Rule:
    matches = re.compile(pattern).fullmatch

    def rule(value: Json, place: str) -> str:
        if not isinstance(value, str) or len(value) > max_length or not matches(value):
            raise wrong(place, f"must be a text of at most {max_length} characters, {pattern}")
        return value

    return rule


def whole(minimum: int, maximum: int) -> Rule:
    def rule(value: Json, place: str) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise wrong(place, f"must be a whole number from {minimum} to {maximum}")
        return value

    return rule


def number(minimum: float = -math.inf, maximum: float = math.inf) -> Rule:
    def rule(value: Json, place: str) -> float:
        if type(value) not in {int, float} or not abs(value) <= MAX_NUMBER:
            raise wrong(place, "must be a finite number")
        if not minimum <= value <= maximum:
            raise wrong(place, f"must be a number from {minimum} to {maximum}")
        return float(value)

    return rule


def flag(value: Json, place: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(place, "must be true or false")
    return value


def one_of(*values: str | int) -> Rule:
    def rule(value: Json, place: str) -> Json:
        if type(value) is bool or value not in values:
            raise wrong(place, f"must be {' or '.join(map(repr, values))}")
        return value

    return rule


def or_null(rule: Rule) -> Rule:
    return lambda value, place: None if value is None else rule(value, place)


def anything(value: Json, place: str) -> Json:  # noqa: ARG001
    return value


def many(rule: Rule, minimum: int = 0, maximum: int = 1_000_000) -> Rule:
    def all_of(value: Json, place: str) -> list[Any]:
        if not isinstance(value, list) or not minimum <= len(value) <= maximum:
            raise wrong(place, f"must be a list of {minimum} to {maximum}")
        return [rule(each, f"{place}[{at}]") for at, each in enumerate(value)]

    return all_of


def mapping(key: Rule, rule: Rule) -> Rule:
    def all_of(value: Json, place: str) -> dict[str, Any]:
        return {
            key(name, _below(place, f"the key {_shown(name)}")): rule(
                each, _below(place, _shown(name))
            )
            for name, each in _object(value, place).items()
        }

    return all_of


def fields(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    rules = {**required, **(optional or {})}

    def all_of(value: Json, place: str) -> dict[str, Any]:
        entries = _object(value, place)
        if unknown := entries.keys() - rules.keys():
            raise wrong(place, f"unknown key {_shown(min(unknown))}")
        if missing := required.keys() - entries.keys():
            raise wrong(place, f"lacks {min(missing)}")
        return {name: rules[name](each, _below(place, name)) for name, each in entries.items()}

    return all_of


def variant(kinds: Mapping[str, Rule]) -> Rule:
    """An object with exactly one key, which names the kind of its value."""
    rule = fields({}, kinds)

    def one(value: Json, place: str) -> dict[str, Any]:
        if len(_object(value, place)) != 1:
            raise wrong(place, "must have exactly one key")
        entry: dict[str, Any] = rule(value, place)
        return entry

    return one


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(place, "must be an object")
    return value


def _below(place: str, part: str) -> str:
    return place + part if place.endswith(": ") else f"{place}.{part}"


def _shown(name: str) -> str:
    return (
        name
        if name.isidentifier() and len(name) <= MAX_KEY_IN_MESSAGE
        else repr(name[:MAX_KEY_IN_MESSAGE])
    )


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A hook of `json.loads`, which by itself keeps the last of two. Raises ValueError."""
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise ValueError(f"an object has the key {_shown(name)} twice")
        entries[name] = value
    return entries


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
