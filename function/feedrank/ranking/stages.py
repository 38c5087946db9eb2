"""What a team's own rule sees of a request after scoring, and how its result is checked."""

from collections.abc import Mapping, Sequence
from operator import index
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import FeatureRows, Query
from feedrank.errors import StageError, type_and_place
from feedrank.features.spec import Block, FeatureSpec

Scalar = TypeVar("Scalar", bound=np.generic)
Key = TypeVar("Key")


class Scored(NamedTuple):
    """One request after scoring, and after the stages before this one.

    Positions count from 0 in the caller's order of `query.item_ids`. Nothing of it can be changed:
    the response, the decision record and later requests read the same arrays. Later versions may
    add fields, at the end.
    """

    query: Query
    rows: FeatureRows
    scores: Sequence[float]  # (items,), by position
    order: Sequence[int]  # positions, best first
    spec: FeatureSpec

    def column(self, source: Literal["item", "pair"], name: str) -> NDArray[Any]:
        """A feature of the items, or of the user with each item, as the model reads it: (items,),
        or (items, size) of a list. Raises KeyError where the spec has no such feature."""
        for block in get_args(Block):
            for feature, start in self.spec.starts(source, block):
                if feature.name == name:
                    cells = self._cells(source, block)
                    end = start + feature.width
                    return cells[:, start:end] if feature.size else cells[:, start]
        raise KeyError(f"the feature spec has no {source} feature {name!r}")

    def _cells(self, source: Literal["item", "pair"], block: Block) -> NDArray[Any]:
        if block == "values":
            return self.rows.items if source == "item" else self.rows.pairs
        return self.rows.others[source, block]


class RankingStage(Protocol):
    """A business rule or a re-ranking after scoring: changes the order, or leaves items out.

    Called once a request, in the request's own thread, so it must not block. `name` stands in the
    decision record. An exception fails the request: a rule that is skipped in silence is none.
    """

    @property
    def name(self) -> str: ...

    def reorder(self, scored: Scored) -> Sequence[int]:
        """Positions of `scored.order` in their new order, each at most once; what it leaves out is
        not in the response."""


def apply_stages(stages: Sequence[RankingStage], scored: Scored) -> list[int]:
    """The order after all stages. Raises StageError, which names the stage."""
    scored = _read_only(scored)
    for stage in stages:
        try:
            positions = list(map(index, stage.reorder(scored)))
        except Exception as error:
            raise StageError(f"stage {stage.name!r} failed: {_place(error)}") from error
        distinct = set(positions)
        if len(distinct) < len(positions) or not distinct.issubset(scored.order):
            raise StageError(
                f"stage {stage.name!r} returned a position twice, or one that it did not get"
            )
        scored = scored._replace(order=tuple(positions))
    return list(scored.order)


def _place(error: Exception) -> str:
    """In the stage's own file, where the error came through it."""
    traceback = error.__traceback__ and error.__traceback__.tb_next
    return type_and_place(error, traceback.tb_frame.f_code.co_filename if traceback else "")


def _read_only(scored: Scored) -> Scored:
    query, rows = scored.query, scored.rows
    item_ids: Any = tuple(query.item_ids)
    return scored._replace(
        query=query._replace(
            item_ids=item_ids,
            context=MappingProxyType(query.context),
            candidates=_views(query.candidates),
        ),
        rows=rows._replace(
            user=_view(rows.user),
            items=_view(rows.items),
            pairs=_view(rows.pairs),
            unknown_items=_view(rows.unknown_items),
            others=_views(rows.others),
        ),
        scores=tuple(scored.scores),
        order=tuple(scored.order),
    )


def _view(array: NDArray[Scalar]) -> NDArray[Scalar]:
    view = array.view()
    view.flags.writeable = False
    return view


def _views(arrays: Mapping[Key, NDArray[Any]]) -> Mapping[Key, NDArray[Any]]:
    return MappingProxyType({key: _view(array) for key, array in arrays.items()})
