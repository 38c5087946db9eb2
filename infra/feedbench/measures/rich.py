"""A model that reads more than numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feedbench import stats, traffic
from feedbench.bench import EVENTS, Bench
from feedbench.results import Row, row
from feedmodel.demo import rich
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import read_tables
from feedops.local.artifact import with_variables
from feedrank.features.spec_reader import parse_spec

ITEMS, COLUMNS = 100, 50


def measure(bench: Bench) -> Iterator[Row]:
    """A warm request to the rich model; what whole numbers and ids that are text add to one."""
    function = with_variables(bench.target, MODEL_URI=str(rich.publish(bench.scratch / "rich")))
    bodies = rich.requests(ITEMS, EVENTS)
    events = traffic.write_events(bench.scratch / "events-rich.json", bodies)
    (spent_ns,) = bench.probe(
        "latency", function, events=[events], **bench.effort.warm_blocks
    ).values()
    p50_ms, p99_ms = np.percentile(spent_ns, [50, 99]) / 1e6
    yield row("rich model", p50_ms, f"p99 {p99_ms:.2f} ms")
    specs = {kind: _fifty_columns(kind, bench.scratch) for kind in ("int64", "float32")}
    ids = [bodies[0]["user_id"], *bodies[0]["item_ids"]]
    spent_ns = bench.probe(
        "inputs", specs=specs, items=ITEMS, texts=ids, **bench.effort.warm_blocks
    )
    us = {name: np.median(ns, axis=1) / 1_000 for name, ns in spent_ns.items()}  # a round
    note = f"{np.median(us['int64']):.0f} µs against {np.median(us['float32']):.0f} µs"
    yield row("whole numbers", stats.estimate(us["int64"] - us["float32"]), note)
    yield row("text ids", stats.estimate(us["keys"]))


def _fifty_columns(kind: str, directory: Path) -> tuple[dict[str, Any], str]:
    """A spec of so many columns of that type, and a snapshot for it."""
    names = [f"f{number}" for number in range(COLUMNS)]
    features = [{"name": name, "source": "item"} for name in names]
    spec = {"inputs": [{"name": "x", "type": kind, "features": features}]}
    table, snapshot = directory / "columns.parquet", directory / f"{kind}.safetensors"
    columns = {"item_id": range(ITEMS), **{name: range(ITEMS) for name in names}}
    pd.DataFrame(columns).to_parquet(table)
    write_snapshot(read_tables(parse_spec(spec), {"items": table}), snapshot)
    return spec, str(snapshot)
