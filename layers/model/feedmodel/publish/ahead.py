"""Item vectors ahead of time: what a model computes of an item alone is computed when it is
published, stored in the snapshot, and served as a list feature of the item."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.cells import smallest
from feedmodel.publish.export import Program, export_module, quiet
from feedmodel.publish.graph_cut import cut
from feedmodel.publish.onnx_models import OnnxProgram
from feedmodel.publish.scorers import Inputs, torch_scorer
from feedmodel.publish.tables import TYPES, FeatureTable, FeatureTables
from feedmodel.publish.tolerance import same
from feedrank.domain import FeatureRows, FloatArray, Query
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec import Block, Feature, FeatureSpec, Input

NO_VECTORS: Mapping[str, FloatArray] = {}
BATCH = 4_096  # items
TRIED_ALONE = 20
SUFFIX = "_ahead"  # of the feature that holds the vector


@dataclass(frozen=True, slots=True)
class Served:
    """A model with the tables and the spec that belong to it. `vector_width` is of the vectors in
    the items' table, if it has any."""

    spec: FeatureSpec
    program: Program | OnnxProgram
    tables: FeatureTables
    vector_width: int = 0


@quiet()
def compute_ahead(whole: Served, names: Sequence[str]) -> Served:
    """What is served in place of the whole model.

    Raises PublishError where an input isn't of the item alone, or its values depend on the other
    items of a request."""
    spec, program, tables = whole.spec, whole.program, whole.tables
    if isinstance(program, OnnxProgram):
        raise PublishError("--precompute is for a PyTorch model: an ONNX file is served as it is")
    own = _own_inputs(spec, names)
    halves = cut(program.exported, program.inputs, [input_.name for input_ in own])
    alone = replace(spec, inputs=tuple(own))
    vectors_of = torch_scorer(
        export_module(halves.ahead, alone, [input_.name for input_ in own]).exported,
        [input_.name for input_ in own],
        flat=False,
    )
    items = _part(tables["items"], spec, alone)
    vectors = np.concatenate(
        [vectors_of(inputs) for inputs in _item_inputs(alone, items)]
        or [np.empty((0, halves.width), np.float32)]
    )
    unknown = vectors_of(_default_inputs(alone))[0]
    if not (np.isfinite(vectors).all() and np.isfinite(unknown).all()):
        raise PublishError(f"--precompute {', '.join(names)}: an item's vector isn't finite")
    _check_independent(vectors_of, alone, items, vectors)
    feature = Feature(
        own[0].name + SUFFIX, "item", size=halves.width, defaults=tuple(unknown.tolist())
    )
    served = _served_spec(spec, own, feature)
    rest = export_module(halves.rest, served, halves.inputs)
    table = _part(tables["items"], spec, served, {feature.name: vectors})
    return Served(served, rest, {**tables, "items": table}, halves.width)


def _own_inputs(spec: FeatureSpec, names: Sequence[str]) -> list[Input]:
    known = {input_.name.lower(): input_ for input_ in spec.inputs}
    for name in names:
        input_ = known.get(name.lower())
        if input_ is None:
            listed = ", ".join(each.name for each in spec.inputs)
            raise PublishError(f"--precompute {name}: the model has no such input; it has {listed}")
        for feature in input_.features:
            if feature.source != "item" or feature.is_time or input_.per == "request":
                raise PublishError(
                    f"--precompute {name}: {feature.name} isn't of the item alone, so an item's "
                    "vector would change from request to request"
                )
    lower_names = {name.lower() for name in names}
    return [input_ for input_ in spec.inputs if input_.name.lower() in lower_names]


def _served_spec(spec: FeatureSpec, own: Sequence[Input], feature: Feature) -> FeatureSpec:
    first, names = own[0].name, {input_.name for input_ in own}
    inputs = tuple(
        Input(first, "item", (feature,)) if input_.name == first else input_
        for input_ in spec.inputs
        if input_.name == first or input_.name not in names
    )
    used = {f.vocabulary for input_ in inputs for f in input_.features}
    vocabularies = {name: texts for name, texts in spec.vocabularies.items() if name in used}
    return replace(spec, inputs=inputs, vocabularies=vocabularies)


def _part(
    items: FeatureTable,
    before: FeatureSpec,
    after: FeatureSpec,
    vectors: Mapping[str, FloatArray] = NO_VECTORS,
) -> FeatureTable:
    """The table as `after` describes it: columns of `before`, and the vectors."""
    blocks: dict[Block, NDArray[Any]] = {}
    for block in get_args(Block):
        stored = _columns(items, before, block)
        if block == "values":
            stored |= vectors
        columns = [stored[feature.name] for feature in after.block("item", block)]
        dtype = TYPES[block]
        nothing = np.empty((len(items.ids), 0), dtype)
        blocks[block] = np.hstack([nothing, *columns], dtype=dtype)
    return FeatureTable(
        items.ids,
        blocks["values"],
        items.missing,
        items.unknown,
        smallest(blocks["integers"], after.integer_defaults("item")),
        blocks["times"],
        halves=blocks["halves"],
    )


def _columns(items: FeatureTable, spec: FeatureSpec, block: Block) -> dict[str, NDArray[Any]]:
    return {
        feature.name: getattr(items, block)[:, start : start + feature.width]
        for feature, start in spec.starts("item", block)
    }


def _item_inputs(spec: FeatureSpec, items: FeatureTable) -> Iterator[Inputs]:
    """Batches of all rows, laid out by the code that serves."""
    builder = MatrixBuilder(spec)
    for start in range(0, len(items.ids), BATCH):
        part = slice(start, start + BATCH)
        yield builder.build(*_request(*_rows(items, part)))


def _default_inputs(spec: FeatureSpec) -> Inputs:
    return MatrixBuilder(spec).build(
        *_request(
            spec.defaults("item")[np.newaxis],
            spec.integer_defaults("item")[np.newaxis],
            spec.defaults("item", "halves")[np.newaxis],
        )
    )


def _rows(items: FeatureTable, at: slice) -> tuple[FloatArray, NDArray[Any], NDArray[Any]]:
    return items.values[at], items.integers[at], items.halves[at].astype(np.float16)


def _request(
    values: FloatArray, integers: NDArray[Any], halves: NDArray[Any]
) -> tuple[Query, FeatureRows]:
    items = len(values)
    nobody = np.empty(0, np.float32)
    rows = FeatureRows(
        user=nobody,
        items=values,
        pairs=np.empty((items, 0), np.float32),
        unknown_user=True,
        unknown_items=np.zeros(items, np.bool_),
        others={("item", "integers"): integers, ("item", "halves"): halves},
    )
    return Query(0, range(items), {}, 0.0), rows


def _check_independent(
    vectors_of: Callable[[Inputs], FloatArray],
    spec: FeatureSpec,
    items: FeatureTable,
    vectors: FloatArray,
) -> None:
    builder = MatrixBuilder(spec)
    for at in range(min(len(vectors), TRIED_ALONE)):
        row = slice(at, at + 1)
        inputs = builder.build(*_request(*_rows(items, row)))
        if not same(vectors_of(inputs), vectors[row]):
            names = ", ".join(input_.name for input_ in spec.inputs)
            raise PublishError(
                f"--precompute {names}: an item's vector depends on the other items of "
                "the request, so it can't be computed before there is one"
            )
