"""What it costs that the snapshot keeps some vectors as float16, as the feature spec says."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from feedmodel.errors import PublishError
from feedmodel.publish.golden import parity_queries
from feedmodel.publish.quantized import TOP, long_queries, share_of_top
from feedmodel.publish.scorers import Inputs, Scorers
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import FeatureTables
from feedmodel.publish.tolerance import scale_of, within
from feedmodel.publish.vocabularies import request_vocabularies
from feedrank.domain import FloatArray, Query
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore

FLOAT16_BYTES = 2  # a number less than as float32


class _Exact:
    """The model's inputs as they were without rounding."""

    def __init__(self, scorers: Scorers, tables: FeatureTables, directory: Path) -> None:
        vocabularies = request_vocabularies(scorers.spec)
        with TemporaryDirectory(dir=directory, prefix=".exact-") as scratch:
            path = Path(scratch) / "features"
            write_snapshot(tables, path, vocabularies, rounded=False)
            self._store = SnapshotStore(path, scorers.spec)
        self._matrix = MatrixBuilder(scorers.spec, vocabularies)

    def inputs(self, query: Query) -> Inputs:
        return self._matrix.build(query, self._store.look_up(query))


def cost_of_float16(
    scorers: Scorers, tables: FeatureTables, tolerance: float, directory: Path
) -> str:
    """The model's scores with rounded vectors beside those with the vectors as they are, in words;
    empty where none is rounded. `directory` has room for the exact tables.

    Raises PublishError where the scores are further apart than `tolerance`: of a score in [0, 1],
    or of how far apart scores of any range lie.
    """
    numbers = sum(table.halves.size for table in tables.values())
    if not numbers:
        return ""
    exact = _Exact(scorers, tables, directory)
    lists = [_both(scorers, exact, query) for query in long_queries(tables)]
    queries = parity_queries(scorers.spec, tables)
    pairs = [*lists, *(_both(scorers, exact, query) for query in queries)]
    before, after = (np.concatenate(scores) for scores in zip(*pairs, strict=True))
    allowed = within(before, scale_of(before, scorers.spec.range), tolerance)
    differences = np.abs(after - before)
    apart, worst = float(differences.max()), int((differences - allowed).argmax())
    if not (differences <= allowed).all():
        raise PublishError(
            f"vectors as float16 move scores by up to {apart:.1e}; {allowed[worst]:.0e} is "
            'allowed: allow more with --tolerance, or leave "store" out of the feature spec'
        )
    text = f"{FLOAT16_BYTES * numbers / 1e6:.1f} MB less; scores {apart:.1e} apart at most"
    if lists:
        text += f", {np.mean([share_of_top(a, b) for a, b in lists]):.1%} of the top {TOP} kept"
    return text


def _both(scorers: Scorers, exact: _Exact, query: Query) -> tuple[FloatArray, FloatArray]:
    return scorers.torch(exact.inputs(query)), scorers.torch(scorers.inputs(query))
