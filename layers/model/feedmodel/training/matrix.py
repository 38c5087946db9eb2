"""A model's inputs for past requests, by the code that serves.

A training matrix from other code than the one that serves will differ from it one day, and nobody
notices but the ranking. So both functions here go through the feature spec that is published:

    spec = read_spec(Path("spec.json"))
    tables = read_tables(spec, {"users": Path("users.parquet"), "items": Path("items.parquet")})
    inputs = request_inputs(spec, tables, pd.read_parquet("requests.parquet"))
    network(*(torch.from_numpy(inputs[input_.name]) for input_ in spec.inputs))

`feedmodel.publish.past_requests` lists the columns of such a table.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.errors import PublishError
from feedmodel.publish.past_requests import columns_read, past_requests
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import FeatureTables
from feedmodel.publish.vocabularies import request_vocabularies
from feedrank.domain import FloatArray
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec, Input

FeatureColumns = Mapping[str, FloatArray]  # by feature; each (rows,)
PLACE = "past requests"


def column_inputs(spec: FeatureSpec, columns: FeatureColumns) -> dict[str, FloatArray]:
    """Each of the spec's inputs, (rows, features) float32, from features that are computed already.

    A per-request input, too, has as many rows as there are: training mixes requests.
    """
    return {
        input_.name: np.column_stack([columns[feature.name] for feature in input_.features])
        for input_ in spec.inputs
    }


def request_inputs(
    spec: FeatureSpec, tables: FeatureTables, requests: pd.DataFrame
) -> dict[str, NDArray[Any]]:
    """The same from past requests: what serving would have computed for them from these tables.

    Each input has a row for each row of `requests`, in its order and of the model's own shape; an
    input per request, too. `requests` must have each column that the spec reads, and may have
    others, such as what was clicked.

    The tables describe one time. For a request long before it they know what came after, such as
    its clicks: give the tables as of each period's start, and a period at a time.

    Raises PublishError that names the column; InvalidRequestError for a context value that the
    spec can't read.
    """
    if absent := [name for name in columns_read(spec) if name not in requests]:
        raise PublishError(f"{PLACE}: lacks the column {', '.join(absent)}")
    inputs = {
        input_.name: np.empty((len(requests), *_row_shape(input_)), input_.type)
        for input_ in spec.inputs
    }
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "tables.safetensors"
        write_snapshot(tables, path, request_vocabularies(spec))
        store = SnapshotStore(path, spec)
        builder = MatrixBuilder(spec, store.vocabularies)
        candidates = CandidateFeatures(spec, store.vocabularies)
        for rows, query in past_requests(spec, requests, candidates, PLACE):
            for name, matrix in builder.build(query, store.look_up(query)).items():
                inputs[name][rows] = matrix  # one row per request is repeated for its items
    return inputs


def _row_shape(input_: Input) -> tuple[int, ...]:
    """Of one row of the batch. An input per request may have no dimension of rows."""
    shape = input_.tensor_shape
    return shape[1:] if input_.per == "item" or shape[0] == 1 else shape
