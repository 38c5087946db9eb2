"""Training rows whose user or item is unknown: the spec's defaults replace what tables would say.

Serving fills in defaults for an id that no table has. A network that has never seen such rows
scores them at random.
"""

from typing import Literal

import numpy as np

from feedmodel.training.matrix import FeatureColumns
from feedrank.domain import BoolArray, FloatArray
from feedrank.features.spec import FeatureSpec

SHARE_IN_TRAINING = 0.05  # of the rows, for users and for items; 0.1 costs 0.003 of NDCG@10
SHARE_IN_TEST = 0.2  # of the shown items
STREAM = 1  # of random numbers, beside the feed's, which has the seed alone


def with_unknown(
    spec: FeatureSpec, columns: FeatureColumns, source: Literal["user", "item"], rows: BoolArray
) -> dict[str, FloatArray]:
    """The columns with the defaults of that source in `rows`, and of pairs, which need both ids."""
    return {**columns} | {
        feature.name: np.where(rows, np.float32(feature.default), columns[feature.name])
        for feature in (*spec.columns(source), *spec.columns("pair"))
    }


def partly_unknown(spec: FeatureSpec, columns: FeatureColumns, seed: int) -> FeatureColumns:
    """The columns that a network is trained on: a share of users and of items is unknown."""
    random = np.random.default_rng((seed, STREAM))
    for source in ("user", "item"):
        rows = random.random(len(next(iter(columns.values())))) < SHARE_IN_TRAINING
        columns = with_unknown(spec, columns, source, rows)
    return columns


def unknown_in_test(rows: int) -> BoolArray:
    """Which rows' items an evaluation treats as unknown; the same for every model."""
    unknown: BoolArray = np.random.default_rng(STREAM).random(rows) < SHARE_IN_TEST
    return unknown
