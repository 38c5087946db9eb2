"""Reads a feature spec from parsed JSON. Every error names the place and what would be right."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast, get_args

import numpy as np

from feedrank.domain import MAX_ID
from feedrank.errors import SpecError
from feedrank.features import expressions
from feedrank.features.spec import (
    PROBABILITY,
    Feature,
    FeatureSpec,
    Ids,
    Input,
    Keep,
    Limits,
    Per,
    Source,
    Store,
    Type,
    UnknownItems,
)

SPEC = "feature spec"
KEYS = {
    "inputs", "unknown_items", "context", "ids", "vocabularies", "outputs", "score", "range",
    "feast",
}  # fmt: skip
INPUT_KEYS = {"name", "type", "per", "shape", "limits", "features"}
FEATURE_KEYS = {"name", "source", "default", "expression", "size", "vocabulary", "keep", "store"}
OUTPUT_KEYS = {"name", "weight"}
MOST_VALUES = 10_000  # of a list
MOST_OUTPUTS = 100
LONGEST_SCORE = 1_000  # characters
LARGEST_DEFAULT = 2**53  # a default is a float64
LARGEST_VOCABULARY = 100_000_000
NAME = re.compile(r"[A-Za-z_]\w*")
SINCE = re.compile(r"since\(\s*[^()\s][^()]*\)")
OF_ONE_ITEM = {"item", "pair", "candidate"}
TABLES = {"user", "item", "pair"}


def parse_spec(data: object) -> FeatureSpec:
    """Raises SpecError, naming the place."""
    entry = _mapping(data, SPEC, KEYS)
    inputs = _list(entry, "inputs", SPEC)
    outputs, score, has_order = _outputs(entry)
    spec = FeatureSpec(
        tuple(_input(each, f"inputs[{i}]") for i, each in enumerate(inputs)),
        cast("UnknownItems", _one_of(entry, "unknown_items", get_args(UnknownItems), SPEC)),
        _context_values(entry.get("context", {})),
        cast("Ids", _one_of(entry, "ids", get_args(Ids), SPEC)),
        _vocabularies(entry.get("vocabularies", {})),
        outputs,
        score,
        _range(entry),
        has_order,
        entry.get("feast", {}),
    )
    names = [input_.name for input_ in spec.inputs]
    if len(set(names)) < len(names):
        raise SpecError(f"{SPEC}: inputs share a name: {', '.join(names)}")
    if all(input_.per == "request" for input_ in spec.inputs):
        raise SpecError(f"{SPEC}: at least one input must be per item")
    _check_that_names_agree(spec)
    _check_vocabularies(spec)
    if "feast" in entry:
        from feedrank.features.feast_views import check_feast

        check_feast(entry["feast"], spec)
    return spec


def _input(data: object, place: str) -> Input:
    entry = _mapping(data, place, INPUT_KEYS)
    per = cast("Per", _one_of(entry, "per", get_args(Per), place, "item"))
    type_ = cast("Type", _one_of(entry, "type", get_args(Type), place, "float32"))
    features = tuple(
        _feature(feature, f"{place}.features[{i}]", type_)
        for i, feature in enumerate(_list(entry, "features", place))
    )
    names = [feature.name for feature in features]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"{place}: feature {doubled[0]!r} stands twice")
    for feature in features:
        if per == "request" and feature.source in OF_ONE_ITEM:
            raise SpecError(
                f"{place}: {feature.name!r} differs by item, so the input can't be per request"
            )
    limits = _limits(entry.get("limits", {}), features, f"{place}.limits", type_)
    return Input(_name(entry, place), per, features, type_, _shape(entry, place), limits)


def _feature(data: object, place: str, type_: Type) -> Feature:
    entry = _mapping(data, place, FEATURE_KEYS)
    name, source = _name(entry, place), entry.get("source")
    if source not in get_args(Source):
        raise SpecError(f"{place}.source must be one of {', '.join(get_args(Source))}")
    default = entry.get("default", 0.0)
    is_list = isinstance(default, list)
    feature = Feature(
        name,
        cast("Source", source),
        0.0 if is_list else _default(default, f"{place}.default", type_),
        _text(entry, "expression", place),
        _size(entry, place),
        _text(entry, "vocabulary", place),
        _defaults(default, f"{place}.default") if is_list else (),
        cast("Keep", entry.get("keep", "")),
        cast("Store", _one_of(entry, "store", get_args(Store), place)),
    )
    if "keep" in entry and not (feature.keep == "last" and feature.size):
        raise SpecError(f'{place}.keep must be "last", of a feature with a size')
    if is_list and (
        type_ == "int64" or source not in TABLES or not feature.size or len(default) != feature.size
    ):
        raise SpecError(
            f"{place}.default: a list of defaults is for a float32 list from a table, with one for "
            "each of its values"
        )
    _check_expression(feature, place, type_)
    if feature.vocabulary and (feature.default != 0 or is_list):
        raise SpecError(f"{place}: what a vocabulary lacks is 0, so the default can't be another")
    if feature.store == "float16":
        _check_float16(feature, place, type_)
    return feature


def _check_float16(feature: Feature, place: str, type_: Type) -> None:
    is_vector = type_ == "float32" and feature.size and not feature.vocabulary
    if feature.source not in {"user", "item"} or not is_vector:
        raise SpecError(f"{place}.store: float16 is for a float32 list of a user or an item")
    with np.errstate(over="ignore"):
        rounded = np.array(feature.default_cells, np.float16)
    if not np.array_equal(rounded, feature.default_cells, equal_nan=True):
        raise SpecError(
            f"{place}.default must be a float16 number, such as 0 or 0.5, as its store is"
        )


def _check_expression(feature: Feature, place: str, type_: Type) -> None:
    expression = feature.expression
    if feature.source == "context":
        if not expression:
            raise SpecError(f"{place}: a context feature, and no other, needs an expression")
        try:
            reads = expressions.parse(expression).reads
        except (ValueError, TypeError) as error:
            raise SpecError(f"{place}: {error}") from error
        if (reads != "number") != bool(feature.vocabulary):
            raise SpecError(f"{place}: text(key) and list(key), and no other, need a vocabulary")
        if (reads == "list") != bool(feature.size):
            raise SpecError(f"{place}: list(key), and no other expression, needs a size")
    elif expression:
        if feature.source == "candidate" or not SINCE.fullmatch(expression):
            raise SpecError(
                f"{place}: a context feature, and no other, needs an expression; a table's feature "
                "may have since(column)"
            )
        if type_ == "int64" or feature.size or feature.vocabulary:
            raise SpecError(f"{place}: since(column) is one float32 number, in days")


def _default(default: object, place: str, type_: Type) -> float | None:
    if default is None:
        if type_ == "int64":
            raise SpecError(f"{place}: null is NaN, which an int64 input can't hold")
        return None
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise SpecError(f"{place} must be a number")
    if not abs(default) <= expressions.FLOAT32_MAX:  # NaN and infinity fail this too
        raise SpecError(f"{place} must be a finite 32-bit number")
    if type_ == "int64" and not (default == int(default) and abs(default) <= LARGEST_DEFAULT):
        raise SpecError(f"{place} must be a whole number of at most 2^53, as the input is int64")
    return float(default)


def _defaults(defaults: list[object], place: str) -> tuple[float, ...]:
    numbers = [_default(default, place, "float32") for default in defaults]
    known = tuple(number for number in numbers if number is not None)
    if len(known) < len(numbers):
        raise SpecError(f"{place}: a list of defaults holds numbers")
    return known


def _size(entry: Mapping[str, Any], place: str) -> int:
    size = entry.get("size", 0)
    if "size" in entry and not _is_whole(size, 1, MOST_VALUES):
        raise SpecError(f"{place}.size must be a whole number from 1 to {MOST_VALUES:,}")
    return int(size)


def _shape(entry: Mapping[str, Any], place: str) -> tuple[int, ...]:
    shape = entry.get("shape", [])
    if not isinstance(shape, list) or not all(_is_whole(n, -1, MOST_VALUES) for n in shape):
        raise SpecError(f"{place}.shape must be a list of whole numbers, -1 for the item rows")
    return tuple(shape)


def _limits(
    data: object, features: Sequence[Feature], place: str, type_: Type
) -> dict[str, Limits]:
    """By feature: a pair for all of its cells, or one for each."""
    widths = {feature.name: feature.width for feature in features}
    limits = {}
    for name, pairs in _mapping(data, place, {*widths}).items():
        is_list = isinstance(pairs, list) and len(pairs) in {1, widths[name]}
        if not is_list or not all(_is_pair(pair, type_) for pair in pairs):
            raise SpecError(
                f"{place}.{name} must be [[smallest, largest]], null for none, or one such pair "
                "for each of its values"
            )
        limits[name] = tuple(map(tuple, pairs * (widths[name] // len(pairs))))
    return limits


def _is_pair(value: object, type_: Type) -> bool:
    types = {int} if type_ == "int64" else {int, float}
    largest = MAX_ID if type_ == "int64" else expressions.FLOAT32_MAX
    return (
        isinstance(value, list)
        and len(value) == 2  # noqa: PLR2004 a pair
        and all(end is None or (type(end) in types and abs(end) <= largest) for end in value)
    )


def _outputs(entry: Mapping[str, Any]) -> tuple[dict[str, float], str, bool]:
    """By name the weight of each, the expression that makes the score of them, and whether they
    stand in the model's order."""
    outputs, score = entry.get("outputs", {}), _text(entry, "score", SPEC)
    has_order = isinstance(outputs, list)
    if score and not (has_order and outputs):
        raise SpecError(f"{SPEC}: a score needs outputs as a list of names, without weights")
    if len(score) > LONGEST_SCORE:
        raise SpecError(f"{SPEC}: score has more than {LONGEST_SCORE:,} characters")
    if has_order:
        outputs = _listed_outputs(outputs, score)
    if not isinstance(outputs, dict) or len(outputs) > MOST_OUTPUTS:
        raise SpecError(f"{SPEC}: outputs must be weights by name, {MOST_OUTPUTS} at most")
    for name, weight in outputs.items():
        if not NAME.fullmatch(name):
            raise SpecError(f"{SPEC}: outputs: {name!r} is no name: use letters, digits and _")
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and abs(weight) <= expressions.FLOAT32_MAX):  # NaN fails this too
            raise SpecError(f"{SPEC}: outputs.{name} must be a finite number")
    return {name: float(weight) for name, weight in outputs.items()}, score, has_order


def _listed_outputs(outputs: list[Any], score: str) -> dict[str, Any]:
    """In the model's order: names beside a score, else each with its weight."""
    pairs: list[tuple[Any, Any]]
    if score:
        pairs = [(name, 1.0) for name in outputs]
    elif not outputs or any(isinstance(each, str) for each in outputs):
        raise SpecError(f"{SPEC}: outputs without weights need a score, such as click + like")
    else:
        entries = [_mapping(each, f"outputs[{n}]", OUTPUT_KEYS) for n, each in enumerate(outputs)]
        pairs = [(each.get("name"), each.get("weight")) for each in entries]
    if not all(isinstance(name, str) for name, _ in pairs) or len(dict(pairs)) < len(pairs):
        raise SpecError(f"{SPEC}: outputs must be different texts")
    return dict(pairs)


def _range(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    value = entry.get("range", list(PROBABILITY))
    if value is None:
        return None
    if value != list(PROBABILITY):
        raise SpecError(f"{SPEC}: range must be [0, 1], or null for any finite score")
    return PROBABILITY


def _context_values(data: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, dict):
        raise SpecError(f"{SPEC}: context must be an object")
    for key, values in data.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise SpecError(f"{SPEC}: context.{key} must be a list of texts")
    return {key: tuple(values) for key, values in data.items()}


def _vocabularies(data: object) -> dict[str, tuple[str, ...] | int | str]:
    """The texts of each; the file that has them; or, in a bundle, how many there are."""
    if not isinstance(data, dict):
        raise SpecError(f"{SPEC}: vocabularies must be an object")
    return {name: _vocabulary(value, name) for name, value in data.items()}


def _vocabulary(value: object, name: str) -> tuple[str, ...] | int | str:
    if isinstance(value, list) and all(type(text) in {str, int} for text in value):
        texts = tuple(map(str, value))
        if "" in texts:
            raise SpecError(
                f"{SPEC}: vocabularies.{name} has an empty text, which stands for a missing cell, 0"
            )
        if len({*texts}) < len(texts):
            raise SpecError(f"{SPEC}: vocabularies.{name} has an entry twice")
        return texts
    if isinstance(value, str) and value:
        return value
    if _is_whole(value, 0, LARGEST_VOCABULARY):
        return cast("int", value)
    raise SpecError(f"{SPEC}: vocabularies.{name} must be a list of texts, or a file's name")


def _check_that_names_agree(spec: FeatureSpec) -> None:
    """Two inputs may share a feature, but then it must be the same feature."""
    features: dict[str, Feature] = {}
    for feature in chain.from_iterable(input_.features for input_ in spec.inputs):
        if features.setdefault(feature.name, feature) != feature:
            raise SpecError(f"{SPEC}: {feature.name!r} is described in two ways")


def _check_vocabularies(spec: FeatureSpec) -> None:
    used = {
        feature.vocabulary: feature.name
        for feature in chain.from_iterable(input_.features for input_ in spec.inputs)
        if feature.vocabulary
    }
    for name, feature in used.items():
        if name not in spec.vocabularies:
            raise SpecError(f"{SPEC}: {feature!r} needs the vocabulary {name!r}, which isn't there")
    if unused := sorted(spec.vocabularies.keys() - used.keys()):
        raise SpecError(f"{SPEC}: no feature uses the vocabulary {unused[0]!r}")


def _is_whole(value: object, minimum: int, maximum: int) -> bool:
    return type(value) is int and minimum <= value <= maximum


def _one_of(
    entry: Mapping[str, Any], key: str, known: Sequence[str], place: str, default: str = ""
) -> str:
    value = entry.get(key, default or known[0])
    if value not in known:
        choices = " or ".join(map(repr, known)) if place != SPEC else ", ".join(known)
        raise SpecError(
            f"{place}.{key} must be {choices}, not {value!r}"
            if place != SPEC
            else f"{SPEC}: {key} must be one of {choices}"
        )
    return str(value)


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


def _text(entry: Mapping[str, Any], key: str, place: str) -> str:
    text = entry.get(key, "")
    if not isinstance(text, str):
        raise SpecError(f"{place}.{key} must be a text")
    return text
