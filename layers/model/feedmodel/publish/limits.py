"""Which numbers a model takes, found by trying: an index beyond either end of an embedding fails in
torch, whatever the program does to the number before.

ONNX Runtime reads a negative index from the embedding's end instead. So what a request brings is
compared with these limits. Rows of tables are scored by torch, one by one, when they are published.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.scorers import Inputs, Scorers
from feedmodel.publish.tables import TABLES, FeatureTables
from feedrank.domain import MAX_ID, Query
from feedrank.features.expressions import FLOAT32_MAX
from feedrank.features.spec import Feature, FeatureSpec, Input, Limits

LARGEST_OF = {"hour": 23, "weekday": 6, "is_weekend": 1, "equals": 1}  # by expression
LARGEST = {"float32": FLOAT32_MAX, "int64": MAX_ID}
NO_ENDS = (None, None)
Ends = tuple[float | None, float | None]


def with_limits(scorers: Scorers, queries: Iterable[Query]) -> FeatureSpec:
    """The spec with the limits of each input, found from the first query that the model scores.

    Raises PublishError where a vocabulary or an hour goes beyond the limits.
    """
    spec = scorers.spec
    base = next(filter(scorers.takes, map(scorers.inputs, queries)), None)
    if base is None:
        return spec  # the comparison says why
    inputs = []
    for input_ in spec.inputs:
        limits = {
            feature.name: limits
            for feature, start in input_.starts
            if (limits := _limits_of(spec, feature, _Probe(scorers, base, input_, start)))
        }
        inputs.append(replace(input_, limits=limits))
    return replace(spec, inputs=tuple(inputs))


def check_tables(spec: FeatureSpec, tables: FeatureTables) -> None:
    """Raises PublishError that names a column with numbers beyond the limits."""
    for name, (source, _) in TABLES.items():
        for feature, start in spec.starts(source, "integers"):
            cells = tables[name].integers[:, start : start + feature.width]
            for limits in filter(None, (each.limits.get(feature.name) for each in spec.inputs)):
                _check_cells(cells, limits, f"table {name}, column {feature.column}")
                default = np.array([feature.default_cells])
                _check_cells(default, limits, f"feature spec: the default of {feature.name}")


def _check_cells(cells: NDArray[Any], limits: Limits, place: str) -> None:
    smallest = np.array([-np.inf if low is None else low for low, _ in limits])
    largest = np.array([np.inf if high is None else high for _, high in limits])
    beyond = np.argwhere((cells < smallest) | (cells > largest))
    if len(beyond):
        row, column = beyond[0]
        raise PublishError(
            f"{place}: {len(beyond):,} numbers, such as {cells[row, column]:.0f}, are beyond what "
            f"the model takes, {smallest[column]:.0f} to {largest[column]:.0f}"
        )


def _limits_of(spec: FeatureSpec, feature: Feature, probe: "_Probe") -> Limits:
    """Empty where the model takes every number, or every one that there can be."""
    every = range(feature.width)
    texts = spec.vocabularies.get(feature.vocabulary)
    if feature.vocabulary:
        size = texts if isinstance(texts, int) else len(texts or ())
        if feature.source in {"context", "candidate"} and not probe.takes(size, every):
            raise PublishError(
                f"feature spec: the vocabulary {feature.vocabulary} has {size:,} texts, numbered "
                f"from 1, and the model can't score number {size:,} of {feature.name}: its "
                f"embedding needs {size + 1:,} rows"
            )
        return ()
    if largest := LARGEST_OF.get(feature.expression.partition("(")[0]):
        if not probe.takes(largest, every):
            raise PublishError(
                f"feature spec: {feature.name} goes up to {largest}, which the model can't score"
            )
        return ()
    if probe.is_whole or feature.is_time or feature.source in {"context", "candidate"}:
        limits = probe.limits(every)
        return limits if {*limits} != {NO_ENDS} else ()
    return ()


class _Probe:
    """Tries numbers in cells of one feature, which begin at a column of an input."""

    def __init__(self, scorers: Scorers, base: Inputs, input_: Input, start: int) -> None:
        self.is_whole = input_.type == "int64"
        self._scorers, self._base, self._input, self._start = scorers, base, input_, start

    def takes(self, number: float, cells: Sequence[int]) -> bool:
        """Whether the model scores it in each of the cells."""
        tensor = self._base[self._input.name].copy()
        flat = tensor.reshape(-1, self._input.width)
        flat[:, [self._start + cell for cell in cells]] = number
        return self._scorers.takes(self._base | {self._input.name: tensor})

    def limits(self, cells: Sequence[int]) -> Limits:
        """Of each cell. Most lists have the same for all of them, which is tried first."""
        together = self._ends(cells)
        if together is None or any(
            self.takes(number, [cell]) for number in self._beyond(together) for cell in cells
        ):
            return tuple(self._ends([cell]) or NO_ENDS for cell in cells)
        return (together,) * len(cells)

    def _ends(self, cells: Sequence[int]) -> Ends | None:
        """None where the number of the first cell doesn't do for the others."""
        flat = self._base[self._input.name].reshape(-1, self._input.width)
        known = flat[0, self._start + cells[0]].item()
        if not self.takes(known, cells):
            return None
        smallest, largest = (self._end(known, sign, cells) for sign in (-1, 1))
        if largest is not None and self._scorers.truth != "torch":
            smallest = 0  # an index, of which ONNX Runtime takes negative ones as well
        return smallest, largest

    def _end(self, known: float, sign: int, cells: Sequence[int]) -> float | None:
        """The last number in this direction that the model takes; None where there is no end."""
        good, bad, step = known, sign * LARGEST[self._input.type], 1
        if self.takes(bad, cells):
            return None
        while abs(bad - good) > step and self.takes(good + sign * step, cells):
            good, step = good + sign * step, 2 * step
        if abs(bad - good) > step:
            bad = good + sign * step
        while (middle := self._between(good, bad)) not in {good, bad}:
            good, bad = (middle, bad) if self.takes(middle, cells) else (good, middle)
        return good

    def _between(self, good: float, bad: float) -> float:
        return (good + bad) // 2 if self.is_whole else float(np.float32(0.5 * good + 0.5 * bad))

    def _beyond(self, ends: Ends) -> list[float]:
        """The numbers next to those that are within."""
        low, high = ends
        return [
            end + sign if self.is_whole else float(np.nextafter(np.float32(end), sign * np.inf))
            for end, sign in ((low, -1), (high, 1))
            if end is not None
        ]
