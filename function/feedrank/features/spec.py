"""The feature spec: data that says what each model input is made of.

    {"ids": "text",
     "inputs": [
       {"name": "who", "type": "int64", "per": "request", "features": [
         {"name": "country", "source": "user", "vocabulary": "country"},
         {"name": "history", "source": "user", "size": 50, "vocabulary": "items"}]},
       {"name": "features", "features": [
         {"name": "item_ctr", "source": "item", "default": 0.05},
         {"name": "embedding", "source": "item", "size": 64},
         {"name": "age_days", "source": "item", "expression": "since(created_at)"},
         {"name": "hour_of_day", "source": "context", "expression": "hour"},
         {"name": "device_mobile", "source": "context", "expression": "equals(device, mobile)"},
         {"name": "retrieval_score", "source": "candidate"},
         {"name": "views_of_item", "source": "pair", "default": 0.0}]}],
     "vocabularies": {"country": "country.txt", "items": ["1001", "1002"]},
     "outputs": [{"name": "click", "weight": 1.0}, {"name": "like", "weight": 2.0}],
     "range": null}

An input is one row per item, or, with `"per": "request"`, one row for the whole request, which
then may hold user and context features only. Its values are float32 or, with `"type": "int64"`,
whole numbers. A feature is one number, or with `size` a list of that many: of a longer list the
last ones are kept, a shorter one is filled in front with the default. A list of float32 numbers is
a vector, which has exactly that many, unless `"keep": "last"` makes it a list, too.

A default stands in for whatever is unknown: a user or an item that no table has, an empty cell, a
context key that the caller left out. `null` lets the model see NaN in its place; a list from a
table may have a list of defaults, one for each of its values. With `"store": "float16"` a list of a
user or an item is rounded to 16 bits, which halves its room. With a vocabulary, texts and ids
become 1, 2, 3... in its order, and whatever it lacks becomes 0.

Optional keys beside "inputs": `"unknown_items"` says where an item goes that no table has:
"default" ranks it by the score of its defaults, "last" behind all known items, "drop" leaves it
out. `"context": {"device": ["tv"]}` lists values that callers may send for a key beyond those that
a feature reads. `"outputs"` names the outputs of a model that has several, in the order in which it
gives them, with the weight of each in the score, or without weights beside a `"score"` such as
`"click * (1 + 2 * like)"`. `{"click": 1.0, "like": 2.0}` is for a model that names its outputs: an
object of JSON has no order. `"range"` is what a score may be: [0, 1], or null for any finite
number. `"ids": "text"` takes texts for ids.
`"feast"` says which of Feast's features the spec's are (`feedrank.features.feast_views`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from feedrank.domain import FloatArray, IntArray

Source = Literal["user", "item", "context", "pair", "candidate"]
Per = Literal["item", "request"]
Type = Literal["float32", "int64"]
# Where a table keeps a feature: float32 numbers, whole numbers, times as float64 Unix seconds, or
# numbers that are rounded to float16.
Block = Literal["values", "integers", "times", "halves"]
Store = Literal["float32", "float16"]
# The smallest and the largest number of each cell of a feature; None where there is none.
Limits = tuple[tuple[float | None, float | None], ...]
UnknownItems = Literal["default", "last", "drop"]
Ids = Literal["number", "text"]
Keep = Literal["", "last"]

PROBABILITY = (0.0, 1.0)
IDS_ARE: Mapping[Ids, str] = {  # for whoever sends the other kind
    "number": "this model's ids are whole numbers",
    "text": "this model's ids are texts",
}
SINCE = "since"


@dataclass(frozen=True, slots=True)
class Feature:
    """One number of a model input, or `size` of them. `expression` is what a context feature
    computes, or `since(column)` of a table. A `default` of None is NaN; `defaults`, where they are
    given, are those of each value of a list. `keep` tells of a float32 list that it may have any
    length: without it, it is a vector of exactly `size` numbers. Whole numbers and texts are lists
    in any case. `store` is what a table keeps it as."""

    name: str
    source: Source
    default: float | None = 0.0
    expression: str = ""
    size: int = 0
    vocabulary: str = ""
    defaults: tuple[float, ...] = ()
    keep: Keep = ""
    store: Store = "float32"

    @property
    def width(self) -> int:
        return self.size or 1

    @property
    def default_cells(self) -> tuple[float, ...]:
        """(width,), NaN where the default is null."""
        return self.defaults or (np.nan if self.default is None else self.default,) * self.width

    @property
    def is_time(self) -> bool:
        """Stored as a time, and read as the days from then to the request."""
        return self.expression.startswith(SINCE) and self.source != "context"

    @property
    def column(self) -> str:
        """The column of a table that it is read from."""
        return self.expression[len(SINCE) + 1 : -1].strip() if self.is_time else self.name


@dataclass(frozen=True, slots=True)
class Input:
    """One named tensor of the model. `shape` has -1 for the item rows; () is (rows, width).
    `limits` has, by feature, the numbers that the model takes; a feature that isn't there takes
    every number."""

    name: str
    per: Per
    features: tuple[Feature, ...]
    type: Type = "float32"
    shape: tuple[int, ...] = ()
    limits: Mapping[str, Limits] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return sum(feature.width for feature in self.features)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        return self.shape or (-1 if self.per == "item" else 1, self.width)

    @property
    def starts(self) -> list[tuple[Feature, int]]:
        """Each feature with its first column."""
        return _starts(self.features)

    def block_of(self, feature: Feature) -> Block:
        if feature.is_time:
            return "times"
        if self.type == "int64":
            return "integers"
        return "halves" if feature.store == "float16" else "values"


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """`context_values` are texts that a context key may have beyond those that the spec reads.
    `vocabularies` are the texts of each or, in a bundle, how many there are. `outputs` are a
    model's outputs by name, each with its weight in the score; with a `score` the weights are 1.
    `has_order` tells whether they stand in the order in which the model gives them. `feast` is
    for `feedrank.features.feast_views`."""

    inputs: tuple[Input, ...]
    unknown_items: UnknownItems = "default"
    context_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: Ids = "number"
    vocabularies: Mapping[str, tuple[str, ...] | int | str] = field(default_factory=dict)
    outputs: Mapping[str, float] = field(default_factory=dict)
    score: str = ""
    range: tuple[float, float] | None = PROBABILITY
    has_order: bool = False
    feast: Mapping[str, Any] = field(default_factory=dict)

    def columns(self, source: Source) -> tuple[Feature, ...]:
        """Each feature of this source once, in the order of the inputs."""
        return tuple({f.name: f for _, f in self._features() if f.source == source}.values())

    def block(self, source: Source, block: Block) -> tuple[Feature, ...]:
        """The features that a table of this source holds in this block, in its column order."""
        return tuple(
            {
                f.name: f
                for input_, f in self._features()
                if f.source == source and input_.block_of(f) == block
            }.values()
        )

    def starts(self, source: Source, block: Block) -> list[tuple[Feature, int]]:
        """Each feature of a table's block with its first column."""
        return _starts(self.block(source, block))

    def defaults(self, source: Source, block: Block = "values") -> FloatArray:
        """(columns of this source's values or halves,) float32."""
        cells = [cell for f in self.block(source, block) for cell in f.default_cells]
        return np.array(cells, np.float32)

    def integer_defaults(self, source: Source) -> IntArray:
        """(columns of this source's integers,) int64."""
        features = self.block(source, "integers")
        return np.repeat(
            np.array([int(f.default or 0) for f in features], np.int64),
            [f.width for f in features],
        )

    def limits(self, name: str) -> tuple[float | None, float | None]:
        """The smallest and the largest number that the model takes of any cell of a feature."""
        pairs = [pair for input_ in self.inputs for pair in input_.limits.get(name, ())]
        lows, highs = [low for low, _ in pairs], [high for _, high in pairs]
        return _if_all(min, lows), _if_all(max, highs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """In the order in which a program gives them beside the score."""
        return tuple(sorted(self.outputs))

    def request_vocabularies(self) -> tuple[str, ...]:
        """Those that a request needs: of context and candidate features."""
        return tuple(
            dict.fromkeys(
                f.vocabulary
                for _, f in self._features()
                if f.vocabulary and f.source in {"context", "candidate"}
            )
        )

    def to_json(self) -> dict[str, Any]:
        """What `parse_spec` reads. What is left at its default isn't there."""
        data: dict[str, Any] = {"inputs": [_input_to_json(input_) for input_ in self.inputs]}
        if self.unknown_items != "default":
            data["unknown_items"] = self.unknown_items
        if self.context_values:
            data["context"] = {key: list(values) for key, values in self.context_values.items()}
        if self.ids != "number":
            data["ids"] = self.ids
        if self.vocabularies:
            data["vocabularies"] = {
                name: list(v) if isinstance(v, tuple) else v
                for name, v in self.vocabularies.items()
            }
        if self.outputs:
            data["outputs"] = _outputs_to_json(self)
        if self.score:
            data["score"] = self.score
        if self.range is None:
            data["range"] = None
        if self.feast:
            data["feast"] = dict(self.feast)
        return data

    def _features(self) -> Iterator[tuple[Input, Feature]]:
        return ((input_, feature) for input_ in self.inputs for feature in input_.features)


def _starts(features: Sequence[Feature]) -> list[tuple[Feature, int]]:
    widths = (feature.width for feature in features)
    return list(zip(features, accumulate(widths, initial=0), strict=False))


def _outputs_to_json(spec: FeatureSpec) -> list[Any] | dict[str, float]:
    if spec.score:
        return list(spec.outputs)
    if spec.has_order:
        return [{"name": name, "weight": weight} for name, weight in spec.outputs.items()]
    return dict(spec.outputs)


def _if_all(furthest: Callable[[list[float]], float], ends: list[float | None]) -> float | None:
    known = [end for end in ends if end is not None]
    return furthest(known) if known and len(known) == len(ends) else None


def _input_to_json(input_: Input) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": input_.name, "per": input_.per}
    if input_.type != "float32":
        entry["type"] = input_.type
    if input_.shape:
        entry["shape"] = list(input_.shape)
    if input_.limits:
        entry["limits"] = {name: _limits_to_json(of) for name, of in input_.limits.items()}
    return entry | {"features": [_feature_to_json(feature) for feature in input_.features]}


def _limits_to_json(limits: Limits) -> list[Any]:
    """One pair where all cells have the same."""
    return [list(limit) for limit in (limits[:1] if len({*limits}) == 1 else limits)]


def _feature_to_json(feature: Feature) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": feature.name, "source": feature.source}
    if feature.expression:
        entry["expression"] = feature.expression
    if feature.size:
        entry["size"] = feature.size
    if feature.keep:
        entry["keep"] = feature.keep
    if feature.vocabulary:
        entry["vocabulary"] = feature.vocabulary
    if feature.store != "float32":
        entry["store"] = feature.store
    return entry | {"default": list(feature.defaults) or feature.default}
