"""A business rule: never two items of one author in a row, as long as there is another's."""

from collections.abc import Sequence

from feedrank.ranking.stages import Scored


class NoTwoInARow:
    def __init__(self, feature: str) -> None:
        """`feature` is an item feature of the spec, such as the author's number."""
        self.name = f"no two of one {feature} in a row"
        self._feature = feature

    def reorder(self, scored: Scored) -> Sequence[int]:
        authors = scored.column("item", self._feature).tolist()
        waiting, order = list(scored.order), list[int]()
        while waiting:
            last = authors[order[-1]] if order else None
            best = next((at for at in waiting if authors[at] != last), waiting[0])
            waiting.remove(best)
            order.append(best)
        return order


STAGES = [NoTwoInARow("author")]
