"""Loads feature tables into a store, so that a request finds what the snapshot would have.

A load can be stopped and started again: it goes on after the last thousand rows that were written.
A row is written only where its time is newer than the one that is there, so a late load never
replaces what a stream has written since, and a second load writes nothing.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console

from feedmodel.publish.tables import TABLES, FeatureTables, find_table, read_tables
from feedmodel.publish.tables import FeatureTable as Rows
from feedops.display import print_facts, steps
from feedops.errors import OperationError
from feedops.features.packing import packed_pairs, packed_rows
from feedops.features.rows import RowStore, WrittenRow, store_of
from feedrank.bundle.layout import MANIFEST, parse_manifest
from feedrank.features.packed_rows import MARK, RowLayout, check_storable
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.spec_reader import parse_spec
from feedrank.features.stored_rows import item_key, user_key

BLOCK = 1_000  # rows between two notes of the progress
WRITERS = 32
SAMPLE = 1_000  # rows that are read back
DAY_S = 86_400.0
PROGRESS = ".feedrank-load.json"  # beside the tables


@dataclass(frozen=True, slots=True)
class LoadOptions:
    tables: Path
    bundle: Path
    uri: str
    as_of_s: float  # the moment that the tables describe
    writes_per_s: int  # write units
    expire_days: float = 0.0  # after which the store may delete a row; 0: never
    users_alone: bool = False


@dataclass(slots=True)
class Counts:
    written: int = 0
    newer: int = 0  # or of the same time, which the table had


class Pace:
    """Spreads units evenly over time."""

    def __init__(
        self,
        units_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = 1 / units_per_s
        self._clock, self._sleep = clock, sleep
        self._next_s = clock()

    def wait(self, units: int) -> None:
        now_s = self._clock()
        if self._next_s > now_s:
            self._sleep(self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + units * self._interval_s


def load(options: LoadOptions, console: Console) -> Counts:
    """Raises OperationError, also where a row that is read back is another one."""
    store = store_of(options.uri)
    spec = bundle_spec(options.bundle)
    with steps(console, "Reading the tables") as step:
        rows = [*rows_of(spec, options.tables, users_alone=options.users_alone)]
        progress = Progress(options, rows)
        counts = _write(store, rows, options, progress, step)
        progress.forget()
        step("Reading a sample back")
        newer = check(store, rows, options.as_of_s)
    print_facts(
        console,
        {
            "rows": f"{len(rows):,}",
            "written": f"{counts.written:,}",
            "newer ones kept": f"{counts.newer:,}",
            "read back": f"{min(len(rows), SAMPLE):,}, {newer:,} of them newer",
        },
    )
    return counts


def bundle_spec(bundle: Path) -> FeatureSpec:
    """The one that serving reads, so that rows have its layout."""
    return parse_spec(parse_manifest((bundle / MANIFEST).read_bytes()).feature_spec)


def rows_of(spec: FeatureSpec, directory: Path, *, users_alone: bool) -> Iterator[WrittenRow]:
    sources: tuple[Source, ...] = ("user", "pair") if users_alone else ("user", "pair", "item")
    tables = read_tables(
        _of_sources(spec, sources), {name: find_table(directory, name) for name in TABLES}
    )
    return rows_of_tables(spec, tables, sources)


def rows_of_tables(
    spec: FeatureSpec, tables: FeatureTables, sources: Sequence[Source] = ("user", "pair", "item")
) -> Iterator[WrittenRow]:
    """Users with their pairs, then items. Raises SpecError where a row can't hold a feature."""
    for source in sources:
        check_storable(spec, source)
    layouts = {source: RowLayout(spec, source) for source in sources}
    pairs = dict(packed_pairs(layouts["pair"], tables["pairs"])) if layouts["pair"].blocks else {}
    if spec.columns("user"):
        for user, row in _packed(layouts["user"], tables["users"]):
            yield WrittenRow(user_key(user), row, pairs.pop(user, b""))
    alone = b"" if spec.columns("user") else row_without_cells(layouts["user"])
    for user, packed in pairs.items():
        yield WrittenRow(user_key(user), alone, packed)
    if "item" in sources and spec.columns("item"):
        for item, row in _packed(layouts["item"], tables["items"]):
            yield WrittenRow(item_key(item), row)


def _packed(layout: RowLayout, table: Rows) -> Iterator[tuple[int, bytes]]:
    for id_, row in zip(table.ids[:, 0].tolist(), packed_rows(layout, table), strict=True):
        yield id_, row.tobytes()


def row_without_cells(layout: RowLayout) -> bytes:
    row = np.zeros(1, layout.dtype)
    row[MARK] = layout.mark
    return row.tobytes()


def _of_sources(spec: FeatureSpec, sources: Sequence[Source]) -> FeatureSpec:
    """The spec without the tables that are not loaded."""
    inputs = [
        replace(input_, features=tuple(f for f in input_.features if f.source in sources))
        for input_ in spec.inputs
    ]
    return replace(spec, inputs=tuple(inputs))


class Progress:
    """How many rows an earlier load of the same rows has written, in a file beside the tables."""

    def __init__(self, options: LoadOptions, rows: Sequence[WrittenRow]) -> None:
        digest = blake2b(f"{options.uri} {options.as_of_s} {options.expire_days}".encode())
        for row in rows:
            digest.update(row.key.encode() + row.row + row.pairs)
        self._file = options.tables / PROGRESS
        self._digest = digest.hexdigest()[:32]

    def read(self) -> int:
        try:
            noted = json.loads(self._file.read_text())
            return int(noted["rows"]) if noted["digest"] == self._digest else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def note(self, rows: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"digest": self._digest, "rows": rows}))
        new.replace(self._file)

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)


def _write(
    store: RowStore,
    rows: Sequence[WrittenRow],
    options: LoadOptions,
    progress: Progress,
    step: Callable[[str], None],
) -> Counts:
    counts, done = Counts(), progress.read()
    expires_s = options.as_of_s + options.expire_days * DAY_S if options.expire_days else None
    pace, left = Pace(options.writes_per_s), islice(rows, done, None)

    def write(row: WrittenRow) -> bool:
        return store.write(row, options.as_of_s, expires_s)

    with ThreadPoolExecutor(WRITERS) as pool:
        while block := [*islice(left, BLOCK)]:
            writes = []
            for row in block:
                pace.wait(row.units)
                writes.append(pool.submit(write, row))
            written = sum(each.result() for each in writes)
            counts.written += written
            counts.newer += len(block) - written
            done += len(block)
            progress.note(done)
            step(f"Writing rows: {done:,} of {len(rows):,}")
    return counts


def check(store: RowStore, rows: Sequence[WrittenRow], as_of_s: float) -> int:
    """Reads rows throughout the table back. The number of those that are newer; raises
    OperationError where one is missing or is another one."""
    at = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)
    sample = {rows[each].key: rows[each] for each in at.tolist()}
    stored, newer = store.read([*sample], expired=True), 0
    for key, row in sample.items():
        found = stored.get(key)
        if found is None:
            raise OperationError(f"{key}: was written, and can't be read back")
        if found.time_s > as_of_s:
            newer += 1
        elif (found.row, found.pairs) != (row.row, row.pairs):
            raise OperationError(f"{key}: the store has another row of the same time or an older")
    return newer


def moment(text: str) -> float:
    """Unix seconds of an ISO 8601 time; one without a zone is UTC. Raises OperationError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise OperationError(
            f"--as-of {text}: must be a time such as 2026-11-25T06:00:00Z"
        ) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
