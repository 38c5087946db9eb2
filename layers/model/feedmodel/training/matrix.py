"""A model's inputs for past requests, by the code that serves.

A training matrix from other code than the one that serves will differ from it one day, and nobody
notices but the ranking. So both functions here go through the feature spec that is published:

    spec = parse_spec(json.loads(Path("spec.json").read_bytes()))
    tables = read_tables(spec, {"users": Path("users.parquet"), "items": Path("items.parquet")})
    inputs = request_inputs(spec, tables, pd.read_parquet("requests.parquet"))
    network(*(torch.from_numpy(inputs[input_.name]) for input_ in spec.inputs))
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import FeatureTables
from feedrank.domain import FloatArray, IntArray, Query
from feedrank.features import expressions
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec

FeatureColumns = Mapping[str, FloatArray]  # by feature; each (rows,)

IDS = ("user_id", "item_id")
TIME = "time_s"


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

    `requests` has a row for each item that was shown: `user_id`, `item_id`, `time_s` (Unix time in
    seconds), and each context key that the spec reads as text, empty where the caller left it out.
    Rows of one request need not be adjacent; the result has the order of `requests`.

    The tables describe one time. For a request long before it they know what came after, such as
    its clicks: give the tables as of each period's start, and a period at a time.

    Raises ValueError for a missing column, an id that is not a whole number, or a spec with text
    ids or candidate features, which this table has no columns for yet; InvalidRequestError for a
    context value that the spec can't read.
    """
    if spec.ids == "text" or spec.columns("candidate"):
        raise ValueError("past requests with text ids or candidate features can't be read yet")
    inputs = {
        input_.name: np.empty((len(requests), *input_.tensor_shape[1:]), input_.type)
        for input_ in spec.inputs
    }
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "tables.safetensors"
        write_snapshot(tables, path)
        store = SnapshotStore(path, spec)
        builder = MatrixBuilder(spec, store.vocabularies)
        for rows, query in _past_requests(spec, requests):
            for name, matrix in builder.build(query, store.look_up(query)).items():
                inputs[name][rows] = matrix  # one row per request is repeated for its items
    return inputs


class _PastRequest(NamedTuple):
    rows: IntArray  # (items,) positions in the table of requests
    query: Query


def _past_requests(spec: FeatureSpec, requests: pd.DataFrame) -> Iterator[_PastRequest]:
    keys = sorted(_context_keys(spec))
    _check_columns(requests, keys)
    if requests.empty:
        return
    users, items = (requests[column].to_numpy(np.int64) for column in IDS)
    times_s = requests[TIME].to_numpy(np.float64)
    values = {key: _texts(requests[key]) for key in keys}
    same = requests.groupby(["user_id", TIME, *keys], sort=False, dropna=False).ngroup().to_numpy()
    ends = np.cumsum(np.bincount(same))
    for rows in np.split(np.argsort(same, kind="stable"), ends[:-1]):
        first = rows[0]
        context = {key: text for key in keys if (text := values[key][first]) is not None}
        yield _PastRequest(
            rows, Query(int(users[first]), items[rows].tolist(), context, float(times_s[first]))
        )


def _texts(column: pd.Series) -> list[str | None]:
    """None where a cell is empty."""
    cells = zip(column, column.isna(), strict=True)
    return [None if is_empty else str(cell) for cell, is_empty in cells]


def _context_keys(spec: FeatureSpec) -> set[str]:
    keys = (expressions.parse(feature.expression).key for feature in spec.columns("context"))
    return {key for key in keys if key is not None}


def _check_columns(requests: pd.DataFrame, keys: Sequence[str]) -> None:
    if absent := [name for name in (*IDS, TIME, *keys) if name not in requests.columns]:
        raise ValueError(f"the past requests lack the column {', '.join(absent)}")
    for column in IDS:
        if not pd.api.types.is_integer_dtype(requests[column]):
            raise ValueError(f"the past requests' {column} must hold whole numbers, in every row")
