"""What a team's own rule sees of a request after scoring, and how its result is checked."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

from numpy.typing import NDArray

from feedrank.domain import FeatureRows, Query
from feedrank.errors import StageError
from feedrank.features.spec import Block, FeatureSpec


class Scored(NamedTuple):
    """One request after scoring, and after the stages before this one.

    Positions count from 0 in the caller's order of `query.item_ids`. Later versions may add fields,
    at the end.
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
            start = 0
            for feature in self.spec.block(source, block):
                if feature.name == name:
                    cells = self._cells(source, block)
                    end = start + feature.width
                    return cells[:, start:end] if feature.size else cells[:, start]
                start += feature.width
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
    for stage in stages:
        given = set(scored.order)  # before the stage can change it
        try:
            positions = list(stage.reorder(scored))
        except Exception as error:
            raise StageError(f"stage {stage.name!r} failed: {type(error).__name__}") from error
        kept = set(positions)
        if len(kept) < len(positions) or not kept <= given:
            raise StageError(
                f"stage {stage.name!r} returned a position twice, or one that it did not get"
            )
        scored = scored._replace(order=positions)
    return list(scored.order)
