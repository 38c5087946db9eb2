"""What a store has of the ids in a bundle's snapshot, and how its cells differ from the snapshot's.

A sample of ids throughout the snapshot is read. The pairs of users are not compared.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from feedmodel.publish.tables import FeatureTable
from feedops.display import print_facts
from feedops.features.load import bundle_spec
from feedops.features.packing import packed_rows
from feedops.features.rows import RowStore, store_of
from feedops.features.snapshot_tables import snapshot_tables
from feedrank.features.packed_rows import RowLayout, Rows, check_storable
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.stored_rows import item_key, user_key

PERCENTS = (50, 99, 100)


class Sample(NamedTuple):
    """`ids`, `stored` and `snapshot` are of the rows that the store has and serving takes."""

    size: int
    refused: int
    ids: NDArray[np.int64]
    stored: Rows
    snapshot: Rows
    ages_s: NDArray[np.float64]


class Column(NamedTuple):
    """A feature's cells, (rows, width) each."""

    name: str
    stored: NDArray[Any]
    snapshot: NDArray[Any]


def stats(uri: str, bundle: Path, size: int, console: Console) -> None:
    """Raises OperationError."""
    for source, spec, sample in _samples(uri, bundle, size):
        found = len(sample.ids) + sample.refused
        facts = {
            f"{source}s sampled": f"{sample.size:,}",
            "in the store": f"{found:,} ({found / sample.size:.1%})",
            "refused": f"{sample.refused:,}",
        }
        if len(sample.ids):
            ages = np.percentile(sample.ages_s, PERCENTS) / 3_600
            facts["age in hours"] = "p50 {:.2f}, p99 {:.2f}, oldest {:.2f}".format(*ages)
        print_facts(console, facts)
        rows = [_moments(column) for column in columns(spec, source, sample)]
        _print(console, ("feature", "mean", "snapshot's", "its sd", "shift in sd"), rows)


def diff(uri: str, bundle: Path, size: int, console: Console) -> None:
    """Raises OperationError."""
    for source, spec, sample in _samples(uri, bundle, size):
        print_facts(console, {f"{source}s compared": f"{len(sample.ids):,}"})
        rows = [_difference(column, sample.ids) for column in columns(spec, source, sample)]
        _print(console, ("feature", "rows that differ", "largest difference", "of id"), rows)


def _samples(uri: str, bundle: Path, size: int) -> Iterator[tuple[Source, FeatureSpec, Sample]]:
    spec, store, tables = bundle_spec(bundle), store_of(uri), snapshot_tables(bundle)
    sources: Sequence[tuple[Source, FeatureTable]] = (
        ("user", tables["users"]),
        ("item", tables["items"]),
    )
    for source, table in sources:
        if spec.columns(source) and len(table.ids):
            check_storable(spec, source)
            yield source, spec, sample_of(store, RowLayout(spec, source), table, size)


def sample_of(store: RowStore, layout: RowLayout, table: FeatureTable, size: int) -> Sample:
    key_of = user_key if layout.source == "user" else item_key
    at = np.linspace(0, len(table.ids) - 1, min(len(table.ids), size)).astype(int)
    ids = table.ids[at, 0]
    keys = [key_of(id_) for id_ in ids.tolist()]
    found = {key: row for key, row in store.read(keys).items() if row.row}
    present = np.array([key in found for key in keys])
    stored, reasons = layout.unpack([found[key].row for key in keys if key in found])
    times_s = np.array([found[key].time_s for key in keys if key in found])
    good = np.array([not reason for reason in reasons], bool)
    snapshot = packed_rows(layout, table)[at][present][good]
    refused = len(good) - int(good.sum())
    ages_s = time.time() - times_s[good]
    return Sample(len(keys), refused, ids[present][good], stored[good], snapshot, ages_s)


def columns(spec: FeatureSpec, source: Source, sample: Sample) -> Iterator[Column]:
    for block in RowLayout(spec, source).blocks:
        start = 0
        for feature in spec.block(source, block):
            own = slice(start, start + feature.width)
            start += feature.width
            both = sample.stored[block][:, own], sample.snapshot[block][:, own]
            yield Column(feature.name, *(cells.astype(np.float64) for cells in both))


def _moments(column: Column) -> tuple[str, ...]:
    stored, snapshot = (cells[~np.isnan(cells)] for cells in column[1:])
    if not (len(stored) and len(snapshot)):
        return (column.name, "", "", "", "")
    apart, spread = abs(stored.mean() - snapshot.mean()), snapshot.std()
    shift = f"{apart / spread:.2f}" if spread else ("0.00" if not apart else "")
    return (
        column.name,
        f"{stored.mean():.6g}",
        f"{snapshot.mean():.6g}",
        f"{spread:.6g}",
        shift,
    )


def _difference(column: Column, ids: NDArray[np.int64]) -> tuple[str, ...]:
    equal = (column.stored == column.snapshot) | (
        np.isnan(column.stored) & np.isnan(column.snapshot)
    )
    differs = ~equal.all(1)
    if not differs.any():
        return (column.name, "0", "", "")
    apart = np.where(equal, 0.0, np.nan_to_num(np.abs(column.stored - column.snapshot), nan=np.inf))
    furthest = int(apart.max(1).argmax())
    return (
        column.name,
        f"{differs.sum():,}",
        f"{apart[furthest].max():.6g}",
        str(ids[furthest]),
    )


def _print(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "feature" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
