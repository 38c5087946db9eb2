"""A model that reads more than numbers, and bundles that are large."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from feedbench import stats, traffic
from feedbench.bench import EVENTS, Bench
from feedbench.results import Row, row
from feedmodel.demo import rich
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import read_tables
from feedmodel.publish.upload import upload
from feedops.errors import OperationError
from feedops.local.artifact import in_emulator, with_variables
from feedops.local.aws import BUCKET, create_bucket, local_aws, sdk_environment
from feedops.local.emulator import Function
from feedops.local.emulator_log import reports
from feedrank.features.spec_reader import parse_spec

ITEMS, COLUMNS = 100, 50
LOAD_S = "50"  # what a large bundle may take


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


def measure_bundles(bench: Bench) -> Iterator[Row]:
    """Init by the bundle's size, from a directory and from S3. No row: details only."""
    bench.details["init_ms"] = asyncio.run(_inits_ms(bench))
    yield from ()


async def _inits_ms(bench: Bench) -> dict[str, dict[str, float | None]]:
    """Medians by size and source; None where no init had a model."""
    inits_ms: dict[str, dict[str, float | None]] = {}
    event = json.dumps(traffic.event(rich.requests(1, 1)[0])).encode()
    async with local_aws(bench.scratch / "moto.log") as aws:
        for megabytes in bench.effort.bundle_mb:
            samples_ms: dict[str, list[float]] = {}
            functions = _functions(bench, megabytes, aws)
            for source, function in [*functions.items()] * bench.effort.bundle_rounds:
                samples = samples_ms.setdefault(source, [])
                try:
                    samples.append(await _init_ms(bench, function, event))
                except OperationError as error:  # moto is slow with large objects
                    bench.notes.append(f"{megabytes} MB from {source}: {error}")
            inits_ms[f"{megabytes} MB"] = {
                source: round(median(ms), 1) if ms else None for source, ms in samples_ms.items()
            }
    return inits_ms


def _functions(bench: Bench, megabytes: int, aws: dict[str, str]) -> dict[str, Function]:
    """The same bundle in a directory and on S3."""
    bundle = rich.publish(bench.scratch / f"bundle-{megabytes}", megabytes)
    with sdk_environment(aws):
        create_bucket()
        uri = upload(bundle, f"s3://{BUCKET}/models/").uri
    variables = {"directory": {"MODEL_URI": str(bundle)}, "S3 (moto)": {**aws, "MODEL_URI": uri}}
    target = with_variables(bench.target, MODEL_LOAD_SECONDS=LOAD_S)
    return {source: with_variables(target, **each) for source, each in variables.items()}


async def _init_ms(bench: Bench, function: Function, event: bytes) -> float:
    """INIT REPORT(durationMs) of the emulator."""
    async with in_emulator(function, bench.scratch) as environment:
        response = json.loads(await environment.invoke(event))
    (report,) = reports(environment.log.read_text(errors="replace").splitlines())
    if response["statusCode"] != 200 or report.init_ms is None:  # noqa: PLR2004
        raise OperationError(f"an init without a model, status {response['statusCode']}")
    return report.init_ms
