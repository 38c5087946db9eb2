"""A team's scores beside those that a bundle gives, row by row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.publish.past_requests import PastRequest
from feedmodel.publish.tables import TableName
from feedmodel.publish.tolerance import Scale, scale_of, within
from feedrank.domain import BoolArray, FeatureRows, FloatArray, Query
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.context_keys import ContextKeys
from feedrank.features.spec import Feature, FeatureSpec

Inputs = dict[str, NDArray[Any]]


class Scorer(Protocol):
    """A bundle's tables, layout and engine, as a container has them."""

    @property
    def spec(self) -> FeatureSpec: ...

    @property
    def candidates(self) -> CandidateFeatures: ...

    @property
    def context(self) -> ContextKeys: ...

    def look_up(self, query: Query) -> FeatureRows: ...

    def inputs(self, query: Query) -> Inputs: ...

    def score(self, inputs: Inputs) -> FloatArray:
        """(items,). Raises ScoringError, also where a container would refuse the score."""


@runtime_checkable
class OutputsScorer(Protocol):
    """One that also gives the outputs of a model that has several."""

    def outputs(self, inputs: Inputs) -> FloatArray:
        """(items, outputs), in the order of `FeatureSpec.output_names`."""


@dataclass(frozen=True)
class Comparison:
    """`scores` and `expected` are (rows,), in the order of the table. `tables` are the files that
    the bundle's own tables came from, where they are at hand."""

    scorer: Scorer
    table: pd.DataFrame
    requests: Sequence[PastRequest]
    scores: NDArray[np.float64]
    expected: NDArray[np.float64]
    tolerance: float
    tables: Mapping[TableName, Path | None] = field(default_factory=dict)

    @cached_property
    def apart(self) -> NDArray[np.float64]:
        """(rows,); NaN where the model gives NaN."""
        return np.abs(self.scores - self.expected)

    @cached_property
    def differs(self) -> BoolArray:
        """(rows,). NaN differs from everything."""
        return ~self.near(self.scores, self.expected)

    @cached_property
    def scale(self) -> Scale | None:
        return scale_of(self.expected, self.scorer.spec.range)

    def near(self, scores: NDArray[Any], expected: NDArray[np.float64]) -> BoolArray:
        near: BoolArray = np.abs(scores - expected) <= within(expected, self.scale, self.tolerance)
        return near


class FeaturePlace(NamedTuple):
    """Where a feature stands in a model input."""

    input: str
    at: slice
    feature: Feature
    width: int  # of the input

    def of(self, inputs: Inputs) -> NDArray[Any]:
        """(rows, the feature's columns), a view."""
        return inputs[self.input].reshape(-1, self.width)[:, self.at]


def places_of(spec: FeatureSpec) -> Iterator[FeaturePlace]:
    for input_ in spec.inputs:
        for feature, start in input_.starts:
            at = slice(start, start + feature.width)
            yield FeaturePlace(input_.name, at, feature, input_.width)


def evenly(positions: Sequence[Any], most: int) -> list[Any]:
    """At most that many of them, spread over all."""
    at = np.linspace(0, len(positions) - 1, min(len(positions), most)).astype(int)
    return [positions[n] for n in at]
