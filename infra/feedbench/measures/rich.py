"""A model that reads more than numbers, and bundles that are large."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from feedbench import models, stats, traffic
from feedbench.bench import EVENTS, Bench
from feedbench.results import Row, row
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import read_tables
from feedmodel.publish.upload import upload
from feedops.errors import OperationError
from feedops.local.artifact import with_variables
from feedops.local.aws import BUCKET, create_bucket, local_aws, sdk_environment
from feedops.local.emulator import Function
from feedops.local.emulator_log import reports
from feedrank.features.spec_reader import parse_spec

ITEMS, COLUMNS = 100, 50
TYPES = ("int64", "float32")
LOAD_S = "50"  # what a large bundle may take


def measure(bench: Bench) -> Iterator[Row]:
    """A warm request to the rich model; what whole numbers and ids that are text add to one."""
    bench.say("publishing the rich model")
    options: dict[str, Any] = {
        "rounds": bench.effort.warm_rounds,
        "calls": bench.effort.warm_calls,
    }
    bundle = models.publish_rich(bench.scratch / "rich")
    bodies = models.requests(ITEMS, EVENTS)
    events = str(traffic.write_events(bench.scratch / "events-rich.json", bodies))
    function = with_variables(bench.target, MODEL_URI=str(bundle))
    bench.say("warm requests to the rich model")
    spent_ns = bench.probe("latency", function, events=events, **options)
    latency = stats.distribution([*chain(*spent_ns)])
    yield row("rich model", latency["p50"] / 1e6, f"p99 {latency['p99'] / 1e6:.2f} ms")
    specs = {kind: _fifty_columns(kind, bench.scratch) for kind in TYPES}
    ids = ["user-0001", *bodies[0]["item_ids"]]
    spent_ns = bench.probe("inputs", specs=specs, items=ITEMS, texts=ids, **options)
    whole, real, keys = (np.array(spent_ns[name]) / 1_000 for name in (*TYPES, "keys"))
    note = f"{np.median(whole):.0f} µs against {np.median(real):.0f} µs"
    yield row("whole numbers", stats.difference(whole, real), note)
    yield row("text ids", stats.estimate(np.median(keys, axis=1)))


def _fifty_columns(kind: str, directory: Path) -> tuple[dict[str, Any], str]:
    """A spec of so many columns of that type, and a snapshot for it."""
    names = [f"f{number}" for number in range(COLUMNS)]
    features = [{"name": name, "source": "item"} for name in names]
    spec = {"inputs": [{"name": "x", "type": kind, "features": features}]}
    columns = {name: np.arange(ITEMS) for name in names}
    table, snapshot = directory / "columns.parquet", directory / f"{kind}.safetensors"
    pd.DataFrame({"item_id": range(ITEMS), **columns}).to_parquet(table)
    write_snapshot(read_tables(parse_spec(spec), {"items": table}), snapshot)
    return spec, str(snapshot)


def measure_bundles(bench: Bench) -> Iterator[Row]:
    """Init by the bundle's size, from a directory and from S3. No row: details only."""
    inits_ms = asyncio.run(_inits_ms(bench))
    bench.details["init_ms"] = {
        size: {source: round(median(ms)) for source, ms in by_source.items()}
        for size, by_source in inits_ms.items()
    }
    yield from ()


async def _inits_ms(bench: Bench) -> dict[str, dict[str, list[float]]]:
    """Of each round, by size and source."""
    inits_ms: dict[str, dict[str, list[float]]] = {}
    event = json.dumps(traffic.event(models.requests(1, 1)[0])).encode()
    async with local_aws(bench.scratch / "moto.log") as aws:
        for megabytes in bench.effort.bundle_mb:
            bench.say(f"init with a bundle of {megabytes} MB")
            samples_ms = inits_ms[f"{megabytes} MB"] = defaultdict(list)
            functions = _functions(bench, megabytes, aws)
            for _ in range(bench.effort.bundle_rounds):
                for source, function in functions.items():
                    samples_ms[source].append(await _init_ms(bench, function, event))
    return inits_ms


def _functions(bench: Bench, megabytes: int, aws: dict[str, str]) -> dict[str, Function]:
    """The same bundle in a directory and on S3."""
    bundle = models.publish_rich(bench.scratch / f"bundle-{megabytes}", megabytes)
    with sdk_environment(aws):
        create_bucket()
        uri = upload(bundle, f"s3://{BUCKET}/models/").uri
    target = with_variables(bench.target, MODEL_LOAD_SECONDS=LOAD_S)
    return {
        "directory": with_variables(target, MODEL_URI=str(bundle)),
        "S3 (moto)": with_variables(target, **aws, MODEL_URI=uri),
    }


async def _init_ms(bench: Bench, function: Function, event: bytes) -> float:
    """INIT REPORT(durationMs) of the emulator."""
    async with bench.environment(function) as environment:
        response = json.loads(await environment.invoke(event))
    (report,) = reports(environment.log.read_text(errors="replace").splitlines())
    if response["statusCode"] != 200 or report.init_ms is None:  # noqa: PLR2004
        raise OperationError(f"no init with a model: {response}")
    return report.init_ms
