"""What the caller knows of each candidate, such as a retrieval score: read against the spec."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from feedrank.errors import InvalidRequestError
from feedrank.features.expressions import FLOAT32_MAX
from feedrank.features.matrix import LARGEST_WHOLE, last_of_each, number_of
from feedrank.features.spec import Feature, FeatureSpec
from feedrank.features.vocabulary import NO_VOCABULARIES, Vocabulary

INT64 = np.iinfo(np.int64)
NUMBERS = {int, float, type(None)}  # a bool is none
LISTS = {list, type(None)}


class CandidateFeatures:
    """`names` are those that a request may send, in the order of the spec."""

    def __init__(
        self, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary] = NO_VOCABULARIES
    ) -> None:
        self._features = {f.name: f for f in spec.columns("candidate")}
        self._whole = {
            f.name for input_ in spec.inputs if input_.type == "int64" for f in input_.features
        }
        self._limits = {name: spec.limits(name) for name in self._features}
        self._vocabularies = vocabularies
        self.names = tuple(self._features)

    def read(
        self, sent: Mapping[str, Sequence[Any]], items: int
    ) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """By name (items,) or, of a list, (items, size). null is the spec's default.

        Raises InvalidRequestError that names the feature, and repeats nothing of what was sent.
        """
        if unknown := sent.keys() - self._features.keys():
            known = ", ".join(self.names) or "none"
            raise InvalidRequestError(
                f"features: {len(unknown)} unknown; this model reads {known} of each candidate"
            )
        return {name: self._column(self._features[name], v, items) for name, v in sent.items()}

    def recorded(self, sent: Mapping[str, Sequence[Any]]) -> str:
        """What a record may hold of it, as JSON: of a list its last ones, which count, and no text
        that the bundle doesn't list. Sent again it gives the same scores."""
        return orjson.dumps(
            {name: self._kept(self._features[name], cells) for name, cells in sent.items()}
        ).decode()

    def _kept(self, feature: Feature, cells: Sequence[Any]) -> Sequence[Any]:
        if feature.size:
            last = [cell and cell[-feature.size :] for cell in cells]
            one = replace(feature, size=0)
            return [cell and self._kept(one, cell) for cell in last] if feature.vocabulary else last
        if not feature.vocabulary:
            return cells
        numbers = self._numbers(feature, cells, feature.name).tolist()
        return [cell if number else None for cell, number in zip(cells, numbers, strict=True)]

    def schema(self, most_items: int) -> dict[str, Any]:
        """JSON Schema of each feature's list, which has a value for each item."""
        return {
            name: {
                "type": "array",
                "maxItems": most_items,
                "items": self._cell_schema(feature),
                "description": "One for each of `item_ids`; null is the default"
                + f", and of a list the last {feature.size} count" * self._is_list(feature),
            }
            for name, feature in self._features.items()
        }

    def example(self, items: int) -> dict[str, list[Any]]:
        """Values that a request of so many items may send."""
        values = {"text": "a text", "int64": 1, "float32": 0.5}
        return {
            name: [
                [values[self._type(f)]] * (min(f.size, 2) if self._is_list(f) else f.size)
                if f.size
                else values[self._type(f)]
            ]
            * items
            for name, f in self._features.items()
        }

    def described(self) -> dict[str, Any]:
        """By name, for the model card."""
        return {
            name: {"type": self._type(feature)}
            | ({"size": feature.size} if feature.size else {})
            | self._ends(name)
            for name, feature in self._features.items()
        }

    def _column(self, feature: Feature, cells: Sequence[Any], items: int) -> NDArray[Any]:
        place = f"features.{feature.name}"
        if len(cells) != items:
            raise InvalidRequestError(f"{place}: must have one value for each of the {items} items")
        if not feature.size:
            return self._numbers(feature, cells, place)
        if not {*map(type, cells)} <= LISTS:
            raise InvalidRequestError(f"{place}: each item's value must be a list, or null")
        if not self._is_list(feature) and any(
            cell is not None and len(cell) != feature.size for cell in cells
        ):
            raise InvalidRequestError(
                f"{place}: each item's value must have {feature.size} numbers, or be null"
            )
        lists = [cell or [] for cell in cells]
        numbers = self._numbers(feature, [*chain.from_iterable(lists)], place)
        offsets = np.array([0, *accumulate(map(len, lists))])
        return last_of_each(numbers, offsets, feature)

    def _numbers(self, feature: Feature, cells: Sequence[Any], place: str) -> NDArray[Any]:
        if feature.vocabulary:
            if not all(type(cell) in {str, int, type(None)} for cell in cells):
                raise InvalidRequestError(f"{place}: must be texts, or whole numbers")
            texts = ["" if cell is None else str(cell) for cell in cells]
            return self._vocabularies[feature.vocabulary].numbers(texts)
        if not {*map(type, cells)} <= NUMBERS:
            raise InvalidRequestError(f"{place}: must be numbers")
        numbers = [0 if cell is None else cell for cell in cells]
        read = _whole_numbers if feature.name in self._whole else _floats
        values = read(numbers, place)
        if None in cells:
            values[[cell is None for cell in cells]] = number_of(feature)
        return values

    def _is_list(self, feature: Feature) -> bool:
        """Of any length; a vector has exactly `size` numbers."""
        return bool(feature.size) and (bool(feature.keep) or self._type(feature) != "float32")

    def _type(self, feature: Feature) -> str:
        if feature.vocabulary:
            return "text"
        return "int64" if feature.name in self._whole else "float32"

    def _ends(self, name: str) -> dict[str, float]:
        ends = zip(("minimum", "maximum"), self._limits[name], strict=True)
        return {key: end for key, end in ends if end is not None}

    def _cell_schema(self, feature: Feature) -> dict[str, Any]:
        kinds: dict[str, dict[str, Any]] = {
            "text": {"type": ["string", "integer", "null"]},
            "int64": {
                "type": ["integer", "null"], "minimum": int(INT64.min), "maximum": int(INT64.max)
            },
            "float32": {
                "type": ["number", "null"], "minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX
            },
        }  # fmt: skip
        one = kinds[self._type(feature)] | self._ends(feature.name)
        if not feature.size:
            return one
        exact = (
            {} if self._is_list(feature) else dict.fromkeys(("minItems", "maxItems"), feature.size)
        )
        return {"type": ["array", "null"], "items": one, **exact}


def _floats(numbers: Sequence[float], place: str) -> NDArray[np.float64]:
    try:
        values = np.array(numbers, np.float64)
    except OverflowError:
        values = np.array([np.inf])
    if not (np.abs(values) <= FLOAT32_MAX).all():  # NaN fails this too
        raise InvalidRequestError(f"{place}: must be finite 32-bit numbers")
    return values


def _whole_numbers(numbers: Sequence[float], place: str) -> NDArray[np.int64]:
    """A float is read where it is exact."""
    whole = [int(n) if isinstance(n, float) and _is_exact(n) else n for n in numbers]
    try:
        if float not in map(type, whole):
            return np.array(whole, np.int64)
    except OverflowError:
        pass
    raise InvalidRequestError(f"{place}: must be whole numbers of 64 bits")


def _is_exact(number: float) -> bool:
    return number.is_integer() and abs(number) < LARGEST_WHOLE
