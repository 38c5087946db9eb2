"""The feature spec: data that says what each model input is made of.

    {"inputs": [{"name": "features", "per": "item", "features": [
        {"name": "user_ctr", "source": "user", "default": 0.05},
        {"name": "item_age_days", "source": "item", "default": 0.0},
        {"name": "hour_of_day", "source": "context", "expression": "hour"},
        {"name": "device_mobile", "source": "context", "expression": "equals(device, mobile)"},
        {"name": "views_of_item", "source": "pair", "default": 0.0}]}]}

An input is one row per item, or, with `"per": "request"`, one row for the whole request, which
then may hold user and context features only. A default stands in for whatever is unknown: a user
or an item that no table has, a context key that the caller left out.

Two optional keys stand beside "inputs". `"unknown_items"` says where an item goes that no table
has: "default" ranks it by the score of its defaults, "last" behind all known items, "drop" leaves
it out. `"context": {"device": ["tv"]}` lists values that callers may send for a key beyond those
that an `equals` feature reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, cast, get_args

import numpy as np

from feedrank.domain import FloatArray
from feedrank.errors import SpecError
from feedrank.features import expressions as context

Source = Literal["user", "item", "context", "pair"]
Per = Literal["item", "request"]
UnknownItems = Literal["default", "last", "drop"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a model input. `expression` is what a context feature computes."""

    name: str
    source: Source
    default: float = 0.0
    expression: str = ""


@dataclass(frozen=True, slots=True)
class Input:
    """One named tensor of the model, (rows, features) float32."""

    name: str
    per: Per
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """`context_values` are texts that a context key may have beyond those that the spec reads."""

    inputs: tuple[Input, ...]
    unknown_items: UnknownItems = "default"
    context_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def columns(self, source: Source) -> tuple[Feature, ...]:
        """The features that a table of this source holds, in its column order."""
        features = chain.from_iterable(input_.features for input_ in self.inputs)
        return tuple({f.name: f for f in features if f.source == source}.values())

    def defaults(self, source: Source) -> FloatArray:
        """(columns of this source,) float32."""
        return np.array([f.default for f in self.columns(source)], dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"inputs": [_input_to_json(input_) for input_ in self.inputs]}
        if self.unknown_items != "default":
            data["unknown_items"] = self.unknown_items
        if self.context_values:
            data["context"] = {key: list(values) for key, values in self.context_values.items()}
        return data


def parse_spec(data: object) -> FeatureSpec:
    """Read a feature spec from parsed JSON. Raises SpecError, naming the place."""
    entry = _mapping(data, "feature spec", {"inputs", "unknown_items", "context"})
    inputs = _list(entry, "inputs", "feature spec")
    unknown_items = entry.get("unknown_items", "default")
    if unknown_items not in get_args(UnknownItems):
        known = ", ".join(get_args(UnknownItems))
        raise SpecError(f"feature spec: unknown_items must be one of {known}")
    spec = FeatureSpec(
        tuple(_input(entry, f"inputs[{i}]") for i, entry in enumerate(inputs)),
        cast("UnknownItems", unknown_items),
        _context_values(entry.get("context", {})),
    )
    names = [input_.name for input_ in spec.inputs]
    if len(set(names)) < len(names):
        raise SpecError(f"feature spec: inputs share a name: {', '.join(names)}")
    if all(input_.per == "request" for input_ in spec.inputs):
        raise SpecError("feature spec: at least one input must be per item")
    _check_that_names_agree(spec)
    return spec


def _input(data: object, place: str) -> Input:
    entry = _mapping(data, place, {"name", "per", "features"})
    per = entry.get("per", "item")
    if per not in get_args(Per):
        raise SpecError(f"{place}.per must be 'item' or 'request', not {per!r}")
    features = tuple(
        _feature(feature, f"{place}.features[{i}]")
        for i, feature in enumerate(_list(entry, "features", place))
    )
    names = [feature.name for feature in features]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"{place}: feature {doubled[0]!r} stands twice")
    for feature in features:
        if per == "request" and feature.source in {"item", "pair"}:
            raise SpecError(
                f"{place}: {feature.name!r} differs by item, so the input can't be per request"
            )
    return Input(_name(entry, place), cast("Per", per), features)


def _feature(data: object, place: str) -> Feature:
    entry = _mapping(data, place, {"name", "source", "default", "expression"})
    name, source = _name(entry, place), entry.get("source")
    if source not in get_args(Source):
        raise SpecError(f"{place}.source must be one of {', '.join(get_args(Source))}")
    expression = entry.get("expression", "")
    if (source == "context") != bool(expression):
        raise SpecError(f"{place}: a context feature, and no other, needs an expression")
    if expression:
        try:
            context.parse(expression)
        except (ValueError, TypeError) as error:
            raise SpecError(f"{place}: {error}") from error
    default = entry.get("default", 0.0)
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise SpecError(f"{place}.default must be a number")
    if not abs(default) <= context.FLOAT32_MAX:  # NaN and infinity fail this too
        raise SpecError(f"{place}.default must be a finite 32-bit number")
    return Feature(name, cast("Source", source), float(default), expression)


def _context_values(data: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, dict):
        raise SpecError("feature spec: context must be an object")
    for key, values in data.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise SpecError(f"feature spec: context.{key} must be a list of texts")
    return {key: tuple(values) for key, values in data.items()}


def _check_that_names_agree(spec: FeatureSpec) -> None:
    """Two inputs may share a feature, but then it must be the same feature."""
    seen: dict[str, Feature] = {}
    for feature in chain.from_iterable(input_.features for input_ in spec.inputs):
        if seen.setdefault(feature.name, feature) != feature:
            raise SpecError(f"feature spec: {feature.name!r} is described in two ways")


def _mapping(data: object, place: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise SpecError(f"{place} must be an object")
    if unknown := sorted(set(data) - known):
        raise SpecError(f"{place}: unknown key {unknown[0]!r}")
    return data


def _list(entry: Mapping[str, Any], key: str, place: str) -> Sequence[object]:
    value = entry.get(key)
    if not isinstance(value, list) or not value:
        raise SpecError(f"{place}.{key} must be a list with at least one entry")
    return value


def _name(entry: Mapping[str, Any], place: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise SpecError(f"{place}.name must be a text")
    return name


def _input_to_json(input_: Input) -> dict[str, Any]:
    return {
        "name": input_.name,
        "per": input_.per,
        "features": [_feature_to_json(feature) for feature in input_.features],
    }


def _feature_to_json(feature: Feature) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": feature.name, "source": feature.source}
    if feature.expression:
        entry["expression"] = feature.expression
    return entry | {"default": feature.default}
