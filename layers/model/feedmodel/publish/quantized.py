"""Weights of 8 bits by ONNX Runtime's dynamic quantisation, and what they cost in ranking.

Dynamic quantisation scales a layer's inputs by the largest of a request, so an item's score depends
a little on the other items. What serves are the scores of 8 bits, so they are the golden ones.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from feedmodel.errors import PublishError
from feedmodel.publish.ahead import Served
from feedmodel.publish.batching import can_batch
from feedmodel.publish.comparison import evenly
from feedmodel.publish.expected import read_expected
from feedmodel.publish.golden import KEPT_IN_BUNDLE, MONDAY_S, SEED, golden_case, parity_queries
from feedmodel.publish.parity import Parity, named
from feedmodel.publish.past_requests import past_requests
from feedmodel.publish.rows import in_range
from feedmodel.publish.scorers import Inputs, ScoredQuery, Scorers, quoted
from feedmodel.publish.tables import FeatureTables
from feedmodel.publish.tolerance import scale_of
from feedrank.domain import DEFAULT_MAX_ITEMS, FloatArray, Query
from feedrank.errors import ScoringError
from feedrank.model.engines.onnx import OnnxEngine

TOP = 10
MAX_CHANGED = 0.1  # of the places in the top 10, on average
REQUESTS = 100  # of a hundred known items, in which the top 10 are compared
MOST_OWN = 1_000  # of the team's requests
TIMED = 200  # inferences
QUANTIZED = {"DynamicQuantizeLinear", "DequantizeLinear", "DynamicQuantizeLSTM"}


def write_quantized(full: Path, path: Path) -> str:
    """The change of size, in words. Raises PublishError where ONNX Runtime can't quantise the
    model, or finds nothing in it to quantise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends a step that exported models don't need
    try:
        # 7 bits of the weights: 8 overflow on processors without VNNI, and scores would differ.
        quantize_dynamic(
            full, path, weight_type=QuantType.QInt8, reduce_range=True, per_channel=True
        )
        operators = {node.op_type for node in onnx.load(path).graph.node}
    except Exception as error:  # its errors share no base class
        raise PublishError(f"--quantize int8: ONNX Runtime can't: {error}") from error
    finally:
        logging.disable(disabled)
    if not operators & QUANTIZED:
        raise PublishError("--quantize int8: the model has no matrices whose weights it quantises")
    before, after = (file.stat().st_size / 1e6 for file in (full, path))
    return f"{before:.1f} -> {after:.1f} MB"


def compare_quantized(
    full: Scorers, small: Scorers, whole: Served, parity: Parity, expect: Path | None
) -> Parity:
    """`parity` with the golden scores of 8 bits, and what they cost in the team's own requests, or
    in others. `whole` is before anything was computed ahead. Raises PublishError where the top 10
    change too much."""
    spec = whole.spec
    samples = [_scored(small, query) for query in parity_queries(spec, whole.tables)]
    listed, where = _compared_requests(small, whole.tables, expect)
    pairs = [(full.onnx.score(each.inputs), each.expected) for each in listed]
    if not pairs:
        raise PublishError(f"--quantize int8: needs more than {TOP} items, to compare their order")
    share = float(np.mean([share_of_top(exact, scores) for exact, scores in pairs]))
    if not 1 - share <= MAX_CHANGED:
        raise PublishError(
            f"--quantize int8 changes {1 - share:.1%} of the places in the top {TOP}; at most "
            f"{MAX_CHANGED:.0%} are allowed: publish without it"
        )
    ndcg = float(np.mean([_ndcg(exact, scores) for exact, scores in pairs]))
    apart = max(float(np.abs(exact - scores).max()) for exact, scores in pairs)
    longest = max(samples, key=lambda sample: len(sample.expected)).inputs
    before, after = _median_us(full.onnx, longest), _median_us(small.onnx, longest)
    kept_cases = [samples[number] for number in KEPT_IN_BUNDLE]
    scale = scale_of(np.concatenate([each.expected for each in samples]), spec.range)
    return replace(
        parity,
        batches=can_batch(small, samples),
        cases=[golden_case(each.query, each.expected, small.spec, scale) for each in kept_cases],
        notes={
            **parity.notes,
            "int8": f"keeps {share:.1%} of the top {TOP}, NDCG@{TOP} {ndcg:.4f} of full precision, "
            f"scores {apart:.1e} apart at most, in {where}; {before:.0f} -> {after:.0f} us for "
            f"{DEFAULT_MAX_ITEMS} items on this machine",
        },
    )


def _compared_requests(
    small: Scorers, tables: FeatureTables, expect: Path | None
) -> tuple[list[ScoredQuery], str]:
    """In which the order is compared, and what they are, in words."""
    own = _own_queries(small, expect) if expect else []
    listed = [_scored(small, query) for query in own or long_queries(tables)]
    where = f"{len(listed):,} generated requests"
    if own and expect:
        where = f"{len(own):,} requests of {expect.name}"
    elif expect:
        where += f", as {expect.name} has none of more than {TOP} items"
    return listed, where


def _scored(small: Scorers, query: Query) -> ScoredQuery:
    inputs = small.inputs(query)
    try:
        scores = small.onnx.score(inputs)
    except ScoringError as error:
        raise PublishError(f"{named(query)}: can't be scored by int8: {quoted(error)}") from error
    if not in_range(scores, small.spec):
        raise PublishError(f"--quantize int8: {named(query)}: a score leaves its range")
    return ScoredQuery(query, inputs, scores)


def _own_queries(scorers: Scorers, expect: Path) -> list[Query]:
    """Requests with more items than are compared, which small enough ones keep in any order."""
    table = read_expected(expect, scorers.spec)
    requests = past_requests(scorers.spec, table, scorers.candidates, expect.name)
    return evenly([r.query for r in requests if len(r.query.item_ids) > TOP], MOST_OWN)


def long_queries(tables: FeatureTables) -> Iterator[Query]:
    """Known users and different known items."""
    random = np.random.default_rng(SEED)
    users, items = tables["users"].ids[:, 0], tables["items"].ids[:, 0]
    if len(items) <= TOP:
        return
    size = min(len(items), DEFAULT_MAX_ITEMS)
    for number in range(REQUESTS):
        user = int(random.choice(users)) if len(users) else 0
        item_ids = random.choice(items, size, replace=False).tolist()
        yield Query(user, item_ids, {}, MONDAY_S + 3_600 * number)


def _top(scores: FloatArray) -> Sequence[int]:
    return [int(at) for at in np.argsort(-scores, kind="stable")[:TOP]]


def share_of_top(exact: FloatArray, scores: FloatArray) -> float:
    """The share of the top 10 that stays in it."""
    return len({*_top(exact)} & {*_top(scores)}) / TOP


def _ndcg(exact: FloatArray, scores: FloatArray) -> float:
    """Where the best item is worth 10, the next 9, and the eleventh nothing."""
    worth = np.zeros(len(exact))
    worth[_top(exact)] = np.arange(TOP, 0, -1)
    discount = 1 / np.log2(np.arange(2, TOP + 2))
    return float((worth[_top(scores)] * discount).sum() / (np.arange(TOP, 0, -1) * discount).sum())


def _median_us(engine: OnnxEngine, inputs: Inputs) -> float:
    times = []
    for _ in range(TIMED):
        start = perf_counter()
        engine.score(inputs)
        times.append(perf_counter() - start)
    return 1e6 * float(np.median(times))
