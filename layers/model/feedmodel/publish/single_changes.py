"""Single changes of a bundle's inputs under which its scores would be the team's.

Each is a mistake that comparing ONNX with torch can't see, since both read the same inputs: another
unit, column, hour or zone, features or inputs that are swapped, a list cut or filled at its other
end. A change is tried on a few of the requests that differ; most fail at the first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.publish.comparison import Comparison, FeaturePlace, Inputs, evenly, places_of
from feedmodel.publish.files import read_frame
from feedmodel.publish.past_requests import PastRequest
from feedmodel.publish.tables import TABLES
from feedrank.errors import FeedrankError
from feedrank.features import expressions

REQUESTS = 20  # that differ, in which a change is tried
MOSTLY = 0.9  # of their rows that have to agree then
MOST_SWAPS = 20_000
HOURS = [h for h in np.arange(-12, 14.5, 0.5) if h]
# One each of the rules for summer time.
ZONES = (
    "Europe/London", "Europe/Berlin", "Europe/Athens", "America/New_York", "America/Chicago",
    "America/Denver", "America/Los_Angeles", "America/Halifax", "Australia/Sydney",
    "Pacific/Auckland", "Asia/Jerusalem",
)  # fmt: skip
Values = NDArray[Any]
VALUES: Mapping[str, Callable[[Values], Values]] = {
    "log1p of it": lambda x: np.log1p(np.maximum(x, 0)),
    "expm1 of it": lambda x: np.expm1(np.minimum(x, 80)),
    "log2 of 1 + it": lambda x: np.log2(1 + np.maximum(x, 0)),
    "the natural logarithm of it": lambda x: np.log(np.maximum(x, 1e-30)),
    "the square root of it": lambda x: np.sqrt(np.maximum(x, 0)),
    "60 times it": lambda x: x * 60,
    "a 60th of it": lambda x: x / 60,
    "1,000 times it": lambda x: x * 1_000,
    "a 1,000th of it": lambda x: x / 1_000,
    "100 times it": lambda x: x * 100,
    "a 100th of it": lambda x: x / 100,
    "24 times it": lambda x: x * 24,
    "a 24th of it": lambda x: x / 24,
    "3,600 times it": lambda x: x * 3_600,
    "a 3,600th of it": lambda x: x / 3_600,
    "86,400 times it": lambda x: x * 86_400,
    "an 86,400th of it": lambda x: x / 86_400,
    "one more": lambda x: x + 1,
    "one less": lambda x: np.maximum(x - 1, 0) if x.dtype.kind == "i" else x - 1,
    "1 minus it": lambda x: 1 - x,
    "its negative": lambda x: -x,
    "zero": lambda x: x * 0,
    "missing (NaN)": lambda x: np.full_like(x, np.nan) if x.dtype.kind == "f" else x,
}
LISTS: Mapping[str, Callable[[Values], Values]] = {
    "in the opposite order": lambda x: x[:, ::-1],
}


class Change(NamedTuple):
    text: str
    apply: Callable[[PastRequest, Inputs], None]  # to the inputs, in place


def single_change(comparison: Comparison) -> str | None:
    """The first one under which most of the rows would agree, in words."""
    changed = comparison.differs
    differing = [r for r in comparison.requests if changed[r.rows].any()]
    sample = [(r, comparison.scorer.inputs(r.query)) for r in evenly(differing, REQUESTS)]
    for change in _changes(comparison):
        if _mends(comparison, sample, change):
            return f"they would agree if {change.text}"
    return None


def _mends(
    comparison: Comparison, sample: Sequence[tuple[PastRequest, Inputs]], change: Change
) -> bool:
    """Most of the rows that differ have to agree then, and no more than a few others differ."""
    rows = agreeing = differing = mended = 0
    for request, inputs in sample:
        copies = {name: tensor.copy() for name, tensor in inputs.items()}
        try:
            with np.errstate(all="ignore"):
                change.apply(request, copies)
                scores = comparison.scorer.score(copies)
        except (FeedrankError, ValueError, IndexError):
            return False
        near = comparison.near(scores, comparison.expected[request.rows])
        before = comparison.differs[request.rows]
        rows, agreeing = rows + len(near), agreeing + int(near.sum())
        differing, mended = differing + int(before.sum()), mended + int((near & before).sum())
        if agreeing < MOSTLY * rows or mended < MOSTLY * differing:
            return False
    return mended > 0


def _changes(comparison: Comparison) -> Iterator[Change]:
    places: dict[str, list[FeaturePlace]] = {}
    for columns in places_of(comparison.scorer.spec):
        places.setdefault(columns.feature.name, []).append(columns)
    for name, of_feature in places.items():
        yield from _of_values(name, of_feature)
    yield from _of_time(comparison, list(places.values()))
    yield from _swapped(places)
    yield from _swapped_inputs(comparison)
    yield from _other_columns(comparison, places)


def _of_values(name: str, places: Sequence[FeaturePlace]) -> Iterator[Change]:
    feature = places[0].feature
    if feature.size:
        for text, function in LISTS.items():
            yield Change(f"{name} were {text}", _each(places, function))
        text = f"{name} were filled behind, not in front"
        yield Change(text, _each(places, partial(_filled_behind, np.array(feature.default_cells))))
    if "weekday" in feature.expression:
        yield Change(f"{name} were counted from Sunday", _each(places, lambda x: (x + 1) % 7))
    for text, function in VALUES.items():
        yield Change(
            f"{name} were {text}: is its column, unit or default another?", _each(places, function)
        )


def _each(
    places: Sequence[FeaturePlace], function: Callable[[Values], Values]
) -> Callable[[PastRequest, Inputs], None]:
    def apply(_request: PastRequest, inputs: Inputs) -> None:
        for place in places:
            cells = place.of(inputs)
            cells[:] = function(cells.copy())

    return apply


def _filled_behind(defaults: Values, lists: Values) -> Values:
    filled = np.empty_like(lists)
    filled[:] = defaults
    for row, cells in zip(filled, lists, strict=True):
        own = np.flatnonzero(~((cells == defaults) | (np.isnan(cells) & np.isnan(defaults))))
        first = own[0] if len(own) else len(cells)
        row[: len(cells) - first] = cells[first:]
    return filled


def _of_time(comparison: Comparison, places: Sequence[Sequence[FeaturePlace]]) -> Iterator[Change]:
    """The calendar of another zone."""
    calendar = [
        place
        for of_feature in places
        for place in of_feature
        if place.feature.expression.partition("(")[0] in expressions.CALENDAR
    ]
    if not calendar:
        return
    names = ", ".join(dict.fromkeys(place.feature.name for place in calendar))
    text = f"{names} were of {{}}: is it another zone's time?"

    def shifted(shift_s: Callable[[float], float]) -> Callable[[PastRequest, Inputs], None]:
        def apply(request: PastRequest, inputs: Inputs) -> None:
            time_s = request.query.time_s
            later = request.query._replace(time_s=time_s + shift_s(time_s))
            moved = comparison.scorer.inputs(later)
            for place in calendar:
                place.of(inputs)[:] = place.of(moved)

        return apply

    for hours in sorted(HOURS, key=abs):
        yield Change(text.format(f"{hours:+g} hours"), shifted(partial(_hours_s, hours)))
    for zone in ZONES:
        yield Change(text.format(zone), shifted(partial(_offset_s, zone)))


def _hours_s(hours: float, _time_s: float) -> float:
    return expressions.HOUR_S * hours


def _offset_s(zone: str, time_s: float) -> float:
    offset = datetime.fromtimestamp(time_s, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    return offset.total_seconds() if offset else 0.0


def _swapped(places: Mapping[str, Sequence[FeaturePlace]]) -> Iterator[Change]:
    """Two features of one size, in each other's place."""
    pairs = combinations((of_feature[0] for of_feature in places.values()), 2)
    for tried, (one, other) in enumerate(pairs):
        if tried >= MOST_SWAPS:
            return
        if one.at.stop - one.at.start != other.at.stop - other.at.start:
            continue

        def apply(
            _request: PastRequest,
            inputs: Inputs,
            one: FeaturePlace = one,
            other: FeaturePlace = other,
        ) -> None:
            first, second = one.of(inputs), other.of(inputs)
            if first.shape != second.shape or first.dtype != second.dtype:
                raise ValueError("of different inputs")
            copy = first.copy()
            first[:], second[:] = second.copy(), copy

        yield Change(f"{one.feature.name} and {other.feature.name} were swapped", apply)


def _swapped_inputs(comparison: Comparison) -> Iterator[Change]:
    for one, other in combinations(comparison.scorer.spec.inputs, 2):

        def apply(
            _request: PastRequest, inputs: Inputs, one: str = one.name, other: str = other.name
        ) -> None:
            if inputs[one].shape != inputs[other].shape or inputs[one].dtype != inputs[other].dtype:
                raise ValueError("of different shapes")
            inputs[one], inputs[other] = inputs[other], inputs[one]

        yield Change(f"the inputs {one.name} and {other.name} were swapped", apply)


def _other_columns(
    comparison: Comparison, places: Mapping[str, Sequence[FeaturePlace]]
) -> Iterator[Change]:
    """A feature read from another column of its table's file."""
    for name, (source, keys) in TABLES.items():
        path = comparison.tables.get(name)
        fitting = [
            place[0]
            for place in places.values()
            if place[0].feature.source == source and not place[0].feature.size
        ]
        if path is None or not fitting:
            continue
        frame = read_frame(path).set_index(list(keys))
        for column in frame.select_dtypes("number").columns:
            cells = frame[column]
            for place in fitting:
                if column != place.feature.column and not place.feature.vocabulary:
                    yield Change(
                        f"{place.feature.name} were the column {column} of {path.name}",
                        _from_column(places[place.feature.name], cells, keys),
                    )


def _from_column(
    places: Sequence[FeaturePlace], cells: pd.Series, keys: Sequence[str]
) -> Callable[[PastRequest, Inputs], None]:
    def apply(request: PastRequest, inputs: Inputs) -> None:
        user, items = request.query.user_id, list(request.query.item_ids)
        ids: Any = {
            ("user_id",): [user],
            ("item_id",): items,
            ("user_id", "item_id"): [(user, item) for item in items],
        }[tuple(keys)]
        values = cells.reindex(ids).to_numpy(dtype=np.float64)
        for place in places:
            column = place.of(inputs)[:, 0]
            column[:] = np.where(np.isnan(values), column, values)

    return apply
