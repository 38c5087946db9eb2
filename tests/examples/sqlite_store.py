"""A feature store over SQLite: today's rows of users and items, the snapshot's where there is none.

Tables `users` and `items` have `id` and a column for each of their float32 features in the spec.
"""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from feedrank.domain import FeatureRows, FloatArray, Query
from feedrank.features import FeatureStore
from feedrank.features.spec import FeatureSpec, Source

LONGEST_S = 0.05  # then the snapshot answers


class SqliteStore:
    waits = True

    def __init__(self, file: str, snapshot: FeatureStore, spec: FeatureSpec) -> None:
        self._file = file
        self._snapshot = snapshot
        self._spec = spec

    async def fetch(self, query: Query, deadline_s: float) -> FeatureRows:
        rows = await self._snapshot.fetch(query, deadline_s)
        wait_s = min(LONGEST_S, (deadline_s - perf_counter()) / 2)
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.to_thread(self._updated, query, rows)
        except (TimeoutError, sqlite3.Error):
            return rows._replace(degraded=(*rows.degraded, "features:snapshot"))

    def _updated(self, query: Query, rows: FeatureRows) -> FeatureRows:
        with sqlite3.connect(f"file:{self._file}?mode=ro", LONGEST_S, uri=True) as database:
            users = self._read(database, "user", [query.user_id])
            items = self._read(database, "item", query.item_ids)
        known = np.array([item_id in items for item_id in query.item_ids])
        return rows._replace(
            user=users.get(query.user_id, rows.user),
            items=np.array(
                [
                    items.get(item_id, row)
                    for item_id, row in zip(query.item_ids, rows.items, strict=True)
                ],
                np.float32,
            ),
            unknown_user=rows.unknown_user and query.user_id not in users,
            unknown_items=rows.unknown_items & ~known,
        )

    def _read(
        self, database: sqlite3.Connection, source: Source, ids: Sequence[int]
    ) -> dict[int, FloatArray]:
        columns = ", ".join(f'"{feature.name}"' for feature in self._spec.block(source, "values"))
        places = ", ".join("?" * len(ids))
        text = f"SELECT id, {columns} FROM {source}s WHERE id IN ({places})"  # noqa: S608 own names
        return {row[0]: np.array(row[1:], np.float32) for row in database.execute(text, ids)}


def sqlite_store(snapshot: FeatureStore, spec: FeatureSpec) -> FeatureStore:
    return SqliteStore(os.environ["FEATURES_DB"], snapshot, spec)


STORES = [sqlite_store]
