"""From checked tables to the packed rows that serving reads (`feedrank.features.packed_rows`)."""

from collections.abc import Iterator

import numpy as np

from feedmodel.publish.tables import FeatureTable
from feedrank.features.packed_rows import ITEM, MARK, MARK_BYTES, RowLayout, Rows


def packed_rows(layout: RowLayout, table: FeatureTable) -> Rows:
    """(rows,) of the layout's `dtype`, in the table's order."""
    rows = np.zeros(len(table.ids), layout.dtype)
    rows[MARK] = layout.mark
    for block in layout.blocks:
        rows[block] = getattr(table, block)
    return rows


def packed_pairs(layout: RowLayout, table: FeatureTable) -> Iterator[tuple[int, bytes]]:
    """Each user that has pairs, with all of them as one packed list."""
    pairs = np.zeros(len(table.ids), layout.pair_dtype)
    pairs[ITEM] = table.ids[:, 1]
    for block in layout.blocks:
        pairs[block] = getattr(table, block)
    users, starts = np.unique(table.ids[:, 0], return_index=True)
    mark = layout.mark.to_bytes(MARK_BYTES, "little")
    for user, of_user in zip(users.tolist(), np.split(pairs, starts[1:]), strict=True):
        yield user, mark + of_user.tobytes()
