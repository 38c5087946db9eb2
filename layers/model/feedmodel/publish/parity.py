"""Compares the code that serves with torch before there is a bundle.

Three questions, each of which has refused a real model: does ONNX Runtime score every row of the
tables, does it score as torch does, and do scores tell items apart that the model tells apart?
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feedmodel.errors import PublishError
from feedmodel.publish.batching import can_batch
from feedmodel.publish.golden import (
    KEPT_IN_BUNDLE,
    UNKNOWN,
    UNKNOWN_ID,
    golden_case,
    parity_queries,
)
from feedmodel.publish.precision import widening
from feedmodel.publish.rows import NAN_HELP, Step, check_rows, in_range
from feedmodel.publish.scorers import ScoredQuery, Scorers, quoted
from feedmodel.publish.tables import FeatureTables
from feedmodel.publish.tolerance import Scale, allowed_difference, scale_of
from feedrank.domain import FloatArray, Query
from feedrank.errors import ScoringError

MAX_MERGED_SHARE = 0.1  # of distinct outputs that may become equal scores: float32 rounds
MAX_SATURATED_SHARE = 0.9  # of the scores that may be 0 or 1
MAX_LOGIT = 30.0  # of a plausible classifier: e^-30 is beyond any click rate
MAP_HELP = "let the model map its outputs to [0, 1], as (output - min) / (max - min) does"


@dataclass(frozen=True, slots=True)
class Parity:
    """`apart` is the largest difference between a torch and an ONNX score, over `rows` rows.
    `batches` tells whether items of several requests may share a batch; `cases` are golden,
    `notes` what publishing says about them."""

    apart: float
    rows: int
    batches: bool
    cases: list[dict[str, Any]]
    notes: dict[str, str] = field(default_factory=dict)


class _TorchError(PublishError):
    """Torch could not score a request."""


def compare(scorers: Scorers, tables: FeatureTables, step: Step = lambda _: None) -> Parity:
    """Raises PublishError that names the request, the row or the column."""
    step("comparing ONNX with torch" if scorers.truth == "torch" else "scoring by ONNX Runtime")
    queries = parity_queries(scorers.spec, tables)
    try:
        samples = [_score_by_torch(scorers, query) for query in queries]
    except _TorchError:
        check_rows(scorers, tables, step, batches=False)  # names the row, if one is the reason
        raise
    scale = scale_of(np.concatenate([each.expected for each in samples]), scorers.spec.range)
    apart = max(_difference(scorers, sample, scale) for sample in samples)
    notes: dict[str, str] = {}
    if scorers.half:
        inputs = [sample.inputs for sample in samples]
        notes["up-cast"] = widening(scorers.half, scorers.inputs_in_order, inputs)
    _check_merged(scorers, samples)
    if scorers.spec.range:
        _check_saturated(samples)
    batches = can_batch(scorers, samples)
    notes |= check_rows(scorers, tables, step, scale, batches=batches)
    golden = [samples[number] for number in KEPT_IN_BUNDLE]
    return Parity(
        apart=apart,
        rows=sum(len(sample.expected) for sample in samples),
        batches=batches,
        cases=[golden_case(each.query, each.expected, scorers.spec, scale) for each in golden],
        notes=notes,
    )


def _score_by_torch(scorers: Scorers, query: Query) -> ScoredQuery:
    inputs, items = scorers.inputs(query), len(query.item_ids)
    try:
        expected = scorers.torch(inputs)
    except ScoringError as error:
        raise _TorchError(
            f"{named(query)}: {scorers.truth} can't score it: {quoted(error)}"
        ) from error
    if len(expected) != items:
        raise PublishError(
            f"the model gives {len(expected)} scores for {items} items; it must give one an item"
        )
    if not in_range(expected, scorers.spec):
        raise PublishError(_out_of_range(query, expected))
    return ScoredQuery(query, inputs, expected)


def _out_of_range(query: Query, expected: FloatArray) -> str:
    if np.isnan(expected).any():
        return f"{named(query)}: the model gives NaN; {NAN_HELP}"
    low, high = float(expected.min()), float(expected.max())
    text = f"the model gives scores outside [0, 1], such as {low:.4g} and {high:.4g}; "
    if max(-low, high) <= MAX_LOGIT:
        text += "where they are logits, publish it with --activation sigmoid; else "
    return f'{text}{MAP_HELP}, or give the feature spec "range": null for scores of any size'


def _difference(scorers: Scorers, sample: ScoredQuery, scale: Scale | None) -> float:
    """The largest between torch and ONNX. Raises PublishError where it is too large, or NaN."""
    expected = sample.expected
    try:
        scores = scorers.onnx.score(sample.inputs)
    except ScoringError as error:
        raise PublishError(f"ONNX Runtime can't score as torch does: {quoted(error)}") from error
    apart, allowed = np.abs(scores - expected), allowed_difference(expected, scale)
    excess = apart - allowed
    worst = int(np.argmax(np.where(np.isnan(excess), np.inf, excess)))
    if not excess[worst] <= 0:
        item = sample.query.item_ids[worst]
        help_ = f"; {NAN_HELP}" if np.isnan(scores[worst]) else ""
        raise PublishError(
            f"{named(sample.query)}, item {item}: torch gives {expected[worst]:.6g}, ONNX Runtime "
            f"{scores[worst]:.6g}; {allowed[worst]:.0e} apart is allowed{help_}"
        )
    return float(apart.max())


def named(query: Query) -> str:
    user = "an unknown user" if query.user_id in {UNKNOWN_ID, UNKNOWN} else f"user {query.user_id}"
    return f"{user} with {len(query.item_ids)} items"


def _check_merged(scorers: Scorers, samples: Sequence[ScoredQuery]) -> None:
    """Raises PublishError where the appended sigmoid gives equal scores to different logits."""
    if scorers.logits is None:
        return
    scores = sum(len(np.unique(sample.expected)) for sample in samples)
    logits = sum(len(np.unique(scorers.logits(sample.inputs))) for sample in samples)
    if not logits - scores <= MAX_MERGED_SHARE * logits:
        raise PublishError(
            f"--activation sigmoid leaves {scores:,} distinct scores of {logits:,}: the "
            f"model's outputs are so large that they become 0 or 1; {MAP_HELP}"
        )


def _check_saturated(samples: Sequence[ScoredQuery]) -> None:
    """Raises PublishError where different rows nearly all have a score of 0 or 1."""
    rows = sum(_distinct_rows(sample) for sample in samples)
    saturated = sum(int(np.isin(sample.expected, (0.0, 1.0)).sum()) for sample in samples)
    total = sum(len(sample.expected) for sample in samples)
    if rows > len(samples) and saturated >= MAX_SATURATED_SHARE * total:
        raise PublishError(
            f"{saturated:,} of {total:,} scores are 0 or 1 to the last digit, so nothing is "
            f"ranked: what the model squashes is too large; {MAP_HELP}"
        )


def _distinct_rows(sample: ScoredQuery) -> int:
    return max(
        len(np.unique(tensor.reshape(len(tensor), -1), axis=0)) for tensor in sample.inputs.values()
    )
