"""Bodies of /predict: what a model reads of a request, and what it refuses."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from hypothesis import strategies as st

from everything import DEVICES, SOURCES
from feedrank.features.expressions import FLOAT32_MAX
from long.wire import SECRET, secret
from zoo import ITEMS, USERS, film

Body = dict[str, Any]
LARGE = (100, 999, 1_000)


class Kind(NamedTuple):
    """Of the requests to one bundle. `features` are cells of one candidate, by name."""

    bundle: str  # the fixture's name
    user_ids: st.SearchStrategy[Any]
    item_ids: st.SearchStrategy[Any]
    context: st.SearchStrategy[dict[str, str]]
    features: dict[str, st.SearchStrategy[Any]]
    sizes: tuple[int, ...]


numbers = st.integers(0, 400) | st.integers(0, 2**63 - 1)
NUMBERED = Kind(
    "demo_bundle", numbers, numbers, st.just({}) | st.just({"device": "mobile"}), {}, (100,)
)
TWO_TOWER = NUMBERED._replace(bundle="two_tower_bundle")

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
floats = st.floats(-FLOAT32_MAX, FLOAT32_MAX)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
seconds = st.floats(-62_135_000_000, 253_402_000_000)  # all years but the edges of 1 and 9999
times = st.builds(datetime.fromtimestamp, seconds, offsets)
films = st.integers(0, ITEMS + 3).map(film)
WITH_EVERYTHING = Kind(
    "everything_bundle",
    st.integers(0, USERS + 3).map("user-{}".format) | texts,
    films | texts,
    st.fixed_dictionaries(
        {},
        optional={
            "timestamp": times.map(datetime.isoformat),
            "recent": st.lists(films | secret(texts), max_size=5).map(", ".join),
            "device": st.sampled_from(DEVICES) | secret(texts),
            "temp": floats.map(str),
        },
    ),
    {
        "retrieval_score": st.none() | floats,
        "source": st.none() | st.sampled_from(SOURCES) | secret(texts) | st.integers(),
        "clip": st.none() | st.lists(floats, max_size=4),
    },
    LARGE,
)
KINDS = (NUMBERED, TWO_TOWER, WITH_EVERYTHING)


@st.composite
def bodies(draw: st.DrawFn, kind: Kind) -> Body:
    """One that the bundle ranks. Its ids and texts are real ones, unknown ones, and a caller's."""
    item_ids = draw(st.lists(kind.item_ids, min_size=1, max_size=12))
    body = {"user_id": draw(kind.user_ids), "item_ids": item_ids}
    if context := draw(kind.context):
        body["context"] = context
    names = draw(st.lists(st.sampled_from([*kind.features]), unique=True)) if kind.features else ()
    if names:
        size = len(item_ids)
        body["features"] = {
            name: draw(st.lists(kind.features[name], min_size=size, max_size=size))
            for name in names
        }
    if draw(st.booleans()):
        body["explain"] = draw(st.booleans())
    if draw(st.integers(0, 9)) == 0:
        size = draw(st.sampled_from(kind.sizes))
        return select(body, [place % len(item_ids) for place in range(size)])
    return body


def select(body: Body, places: Sequence[int]) -> Body:
    """With these of its candidates, in this order."""
    selected = body | {"item_ids": [body["item_ids"][place] for place in places]}
    if "features" in body:
        selected["features"] = {
            name: [cells[place] for place in places] for name, cells in body["features"].items()
        }
    return selected


odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 5, 1.5, 1e39, 10**400, 2**63, "", SECRET, [], [SECRET], {}, {SECRET: 1}]
)


@st.composite
def damaged(draw: st.DrawFn, kind: Kind) -> bytes:
    """With something that hardly any bundle reads; no id is the caller's secret."""
    body = draw(bodies(kind))
    field = draw(st.sampled_from(["user_id", "item_ids", "context", "features", "explain", SECRET]))
    match field, draw(st.integers(0, 2)):
        case "item_ids", 0:
            body[field] = [*body[field], draw(odd.filter(lambda one: one != SECRET))]
        case "item_ids", 1:
            body[field] = [SECRET] * (kind.sizes[-1] + 1)
        case "item_ids", _:
            body[field] = draw(odd.filter(lambda one: one != [SECRET]))
        case "context" | "features", 0:
            name = draw(st.sampled_from(["device", "temp", "clip", *kind.features, SECRET]))
            body[field] = body.get(field, {}) | {name: draw(odd)}
        case "features", 1:
            name = draw(st.sampled_from(["clip", *kind.features, SECRET]))
            cells = draw(st.lists(odd, max_size=2 * len(body["item_ids"])))
            body[field] = body.get(field, {}) | {name: cells}
        case "user_id", _:
            body[field] = draw(odd.filter(lambda one: one != SECRET) | st.just(SECRET * 20))
        case _:
            body[field] = draw(odd)
    return json.dumps(body).encode()
