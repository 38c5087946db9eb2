"""Wrong scores that comparing ONNX with torch can't see: each kind is put into a bundle's spec or
tables, or into what the team did in its own code, and has to be found and named.

The team's inputs are laid out cell by cell (`zoo.inputs`), the bundle's by the code that serves.
"""

import copy
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import zoo
from feedmodel.errors import PublishError
from feedmodel.publish.expected import compare
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import read_tables
from feedmodel.publish.vocabularies import request_vocabularies
from feedmodel.threads import one_thread
from feedrank.domain import FeatureRows, Query
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import ContextKeys
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

WINTER_S, HALF_A_YEAR_S = 1_768_000_000, 182 * 86_400
SHOWN = 7  # items a request
AGE, PRICE, HOUR = 0, 1, 2  # columns of the input `dense`
SELLER = {"name": "seller", "source": "item", "vocabulary": "items"}
SPEC: zoo.Spec = {
    "inputs": [
        {"name": "who", "type": "int64", "per": "request", "features": [zoo.COUNTRY, zoo.HISTORY]},
        {"name": "item", "type": "int64", "features": [zoo.ITEM]},
        {"name": "seller", "type": "int64", "features": [SELLER]},
        {"name": "dense", "features": zoo.DENSE},
    ],
    "vocabularies": {name: zoo.VOCABULARIES[name] for name in ("country", "items")},
}  # fmt: skip


class Everything(nn.Module):
    """Each input has its own effect, and the place in the history, too; nothing just adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.countries, self.items = nn.Embedding(5, 4), nn.Embedding(zoo.ITEMS + 1, 8)
        self.places = nn.Parameter(torch.randn(zoo.LENGTH, 1))
        self.first, self.last = nn.Linear(len(zoo.DENSE) + 4 + 3 * 8, 16), nn.Linear(16, 1)

    def forward(self, who: Tensor, item: Tensor, seller: Tensor, dense: Tensor) -> Tensor:
        history = (self.items(who[:, 1:]) * self.places).sum(1)
        user = torch.cat([self.countries(who[:, 0]), history], 1).expand(len(dense), -1)
        of_item = torch.cat([self.items(item[:, 0]), self.items(seller[:, 0])], 1)
        return torch.sigmoid(
            self.last(torch.tanh(self.first(torch.cat([dense / 30, user, of_item], 1)) / 2))
        ).squeeze(1)


KNOWN = zoo.Known(Everything, SPEC)


@pytest.fixture(autouse=True)
def in_one_thread() -> Iterator[None]:
    """Thousands of small inferences: threads only get in each other's way."""
    with one_thread():
        yield


class Served:
    """What a container would do, with torch in place of ONNX Runtime: both read the same inputs."""

    def __init__(self, spec: FeatureSpec, frames: zoo.Frames, directory: Path) -> None:
        self.paths: dict[Any, Path | None] = {
            name: directory / f"{name}.parquet" for name in frames
        }
        for name, frame in frames.items():
            frame.to_parquet(directory / f"{name}.parquet")
        write_snapshot(
            read_tables(spec, self.paths), directory / "snapshot", request_vocabularies(spec)
        )
        self.spec, self._store = spec, SnapshotStore(directory / "snapshot", spec)
        self.candidates, self.context = CandidateFeatures(spec), ContextKeys(spec)
        self._matrix, self._module = MatrixBuilder(spec, self._store.vocabularies), KNOWN.module()

    def look_up(self, query: Query) -> FeatureRows:
        return self._store.look_up(query)

    def inputs(self, query: Query) -> dict[str, NDArray[Any]]:
        return self._matrix.build(query, self.look_up(query))

    def score(self, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            scores: NDArray[np.float32] = self._module(
                *(torch.from_numpy(inputs[name]) for name in ("who", "item", "seller", "dense"))
            ).numpy()
        return scores


Team = Callable[
    [zoo.Impression, list[Tensor]], None
]  # what its own code does to the inputs, in place


class Kind(NamedTuple):
    says: str
    bundle: Callable[[zoo.Spec, dict[str, pd.DataFrame]], None] = lambda _spec, _frames: None
    team: Team = lambda _impression, _inputs: None


def _frames() -> dict[str, pd.DataFrame]:
    frames = copy.deepcopy(zoo.tables())
    random = np.random.default_rng(3)
    frames["items"]["seller"] = random.integers(0, zoo.ITEMS, zoo.ITEMS)
    frames["items"]["price_before"] = random.gamma(3, 4, zoo.ITEMS)
    return frames


def _requests() -> list[zoo.Impression]:
    """Of a year, each user and one that nobody knows; some items are unknown."""
    random = np.random.default_rng(5)
    users = [*range(zoo.USERS), 10_000]
    return [
        zoo.Impression(
            user,
            random.choice(zoo.ITEMS + 3, SHOWN, replace=False).tolist(),
            {},
            WINTER_S + (number % 2) * HALF_A_YEAR_S + 5_003 * number,
            {"retrieval_score": random.random(SHOWN).round(3).tolist()},
        )
        for number, user in enumerate(users)
    ]


@cache
def _laid_out() -> list[tuple[zoo.Impression, list[Tensor]]]:
    frames = _frames()
    return [(impression, zoo.inputs(KNOWN, frames, impression)) for impression in _requests()]


def _scores(team: Team, directory: Path) -> Path:
    rows = []
    module = KNOWN.module()
    for number, (impression, laid_out) in enumerate(_laid_out()):
        inputs = [tensor.clone() for tensor in laid_out]
        team(impression, inputs)
        with torch.inference_mode():
            scores = module(*inputs).tolist()
        rows += [
            {"user_id": impression.user, "item_id": item, "timestamp": impression.time_s,
             "score": score, "retrieval_score": sent, "request_id": number}
            for item, score, sent in zip(
                impression.items, scores, impression.candidates["retrieval_score"], strict=True
            )
        ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(directory / "scores.parquet")
    return directory / "scores.parquet"


def _lines(kind: Kind, directory: Path, *, with_tables: bool = True) -> list[str]:
    """Of what a comparison says."""
    spec, frames = copy.deepcopy(SPEC), _frames()
    kind.bundle(spec, frames)
    served = Served(parse_spec(spec), frames, directory)
    path = _scores(kind.team, directory)
    with pytest.raises(PublishError) as error:
        compare(served, path, tables=served.paths if with_tables else {})
    return str(error.value).splitlines()


def _set(at: int, function: Callable[[Tensor], Tensor]) -> Team:
    def change(_impression: zoo.Impression, inputs: list[Tensor]) -> None:
        inputs[3][:, at] = function(inputs[3][:, at])

    return change


def _feature(spec: zoo.Spec, at: int) -> zoo.Spec:
    dense = spec["inputs"][3]["features"]
    dense[at] = dict(dense[at])
    changed: zoo.Spec = dense[at]
    return changed


def _in_cents(_spec: zoo.Spec, frames: dict[str, pd.DataFrame]) -> None:
    frames["items"]["price"] *= 100


def _other_column(_spec: zoo.Spec, frames: dict[str, pd.DataFrame]) -> None:
    items = frames["items"]
    items["net"], items["price"] = items["price"], items["price_before"]
    items.loc[5, "price"] = np.nan  # where the right one has no value either


def _other_default(spec: zoo.Spec, _frames: dict[str, pd.DataFrame]) -> None:
    _feature(spec, AGE)["default"] = 20.5


def _sorted_vocabulary(spec: zoo.Spec, _frames: dict[str, pd.DataFrame]) -> None:
    spec["vocabularies"] = {**spec["vocabularies"], "country": sorted(zoo.COUNTRIES)}


def _first_of_each_list(impression: zoo.Impression, inputs: list[Tensor]) -> None:
    users = _frames()["users"].set_index("user_id")["history"]
    if impression.user in users.index and len(users[impression.user]) > zoo.LENGTH:
        first = [item + 1 for item in users[impression.user][: zoo.LENGTH]]
        inputs[0][0, 1:] = torch.tensor(first)


def _filled_behind(_impression: zoo.Impression, inputs: list[Tensor]) -> None:
    history = inputs[0][0, 1:]
    own = history[int((history == 0).cumprod(0).sum()) :].clone()
    history[:] = 0
    history[: len(own)] = own


def _in_berlin(impression: zoo.Impression, inputs: list[Tensor]) -> None:
    inputs[3][:, HOUR] = datetime.fromtimestamp(impression.time_s, ZoneInfo("Europe/Berlin")).hour


def _stale(_spec: zoo.Spec, frames: dict[str, pd.DataFrame]) -> None:
    """As of last week, before a third of the users had a birthday."""
    users = frames["users"]
    users["age"] -= np.where(users["user_id"] % 3 == 0, users["user_id"] % 7 + 1, 0)


def _swapped_features(spec: zoo.Spec, _frames: dict[str, pd.DataFrame]) -> None:
    dense = spec["inputs"][3]["features"]
    spec["inputs"][3]["features"] = [dense[PRICE], dense[AGE], *dense[2:]]


def _swapped_inputs(spec: zoo.Spec, _frames: dict[str, pd.DataFrame]) -> None:
    item, seller = spec["inputs"][1:3]
    item["features"], seller["features"] = seller["features"], item["features"]


KINDS = {
    "a wrong column": Kind(
        "they would agree if price were the column net of items.parquet", _other_column
    ),
    "a unit": Kind("they would agree if price were a 100th of it", _in_cents),
    "a default": Kind("rows with age 20.5, its default, differ", _other_default),
    "an hour": Kind("they would agree if hour were one more", team=_set(HOUR, lambda x: x + 1)),
    "the order of a vocabulary": Kind(
        "of the difference is the same wherever country is: compare its values, and the order of "
        "the vocabulary country",
        _sorted_vocabulary,
    ),
    "the end of a list that is kept": Kind(
        "rows whose history has 10 values or more (is its other end kept?) differ",
        team=_first_of_each_list,
    ),
    "the side of the padding": Kind(
        "they would agree if history were filled behind", team=_filled_behind
    ),
    "a time zone": Kind("they would agree if hour were of Europe/Berlin", team=_in_berlin),
    "a stale table": Kind("of the difference is the user's alone: compare country, ", _stale),
    "swapped features": Kind("they would agree if price and age were swapped", _swapped_features),
    "swapped inputs": Kind("they would agree if seller and item_id were swapped", _swapped_inputs),
    "a missing log1p": Kind(
        "they would agree if price were log1p of it", team=_set(PRICE, torch.log1p)
    ),
}


def test_the_same_scores_agree(tmp_path: Path) -> None:
    """Or what follows would prove nothing."""
    served = Served(parse_spec(SPEC), _frames(), tmp_path)
    agreement = compare(served, _scores(lambda _impression, _inputs: None, tmp_path))
    assert (agreement.rows, agreement.requests) == (41 * SHOWN, 41)
    assert agreement.apart < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_wrong_scores_is_found_and_named(kind: str, tmp_path: Path) -> None:
    first, *rows, last = _lines(KINDS[kind], tmp_path)
    assert "scores differ by more than 1e-05, by " in first
    assert rows
    assert KINDS[kind].says in last


def test_without_the_tables_a_wrong_column_is_the_items(tmp_path: Path) -> None:
    last = _lines(KINDS["a wrong column"], tmp_path, with_tables=False)[-1]
    assert "of the difference is the item's alone: compare item_id, seller, price" in last
