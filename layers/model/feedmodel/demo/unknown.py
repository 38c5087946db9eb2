"""Rows whose user or item is unknown: the spec's defaults stand where the tables would speak.

Serving fills in defaults for an id that no table has. A network has to be shown such rows, or what
it makes of them is chance.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feedmodel.demo.tables import Columns
from feedrank.features.spec import FeatureSpec

SHARE_IN_TRAINING = 0.05  # of the rows, for users and for items; 0.1 costs 0.003 of NDCG@10
SHARE_IN_TEST = 0.2  # of the shown items
STREAM = 1  # of random numbers, beside the feed's, which has the seed alone


def with_unknown(
    spec: FeatureSpec, columns: Columns, source: Literal["user", "item"], rows: NDArray[np.bool_]
) -> Columns:
    """The columns with that source unknown in `rows`, and with it what its pairs would say."""
    return columns | {
        feature.name: np.where(rows, np.float32(feature.default), columns[feature.name])
        for feature in (*spec.columns(source), *spec.columns("pair"))
    }


def partly_unknown(spec: FeatureSpec, columns: Columns, seed: int) -> Columns:
    """The columns as a network learns from them: a share of users and of items unknown."""
    random = np.random.default_rng((seed, STREAM))
    for source in ("user", "item"):
        drawn = random.random(len(next(iter(columns.values())))) < SHARE_IN_TRAINING
        columns = with_unknown(spec, columns, source, drawn)
    return columns


def unknown_in_test(rows: int) -> NDArray[np.bool_]:
    """Which rows' items to take for unknown in an evaluation; the same for every model."""
    unknown: NDArray[np.bool_] = np.random.default_rng(STREAM).random(rows) < SHARE_IN_TEST
    return unknown
