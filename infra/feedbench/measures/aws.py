"""What AWS keeps, measured on stand-ins for it: a bundle on S3, features in DynamoDB."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import time
from typing import Any
from zlib import crc32

import numpy as np
import orjson
import pandas as pd
from aiohttp import web

from feedbench import machine, stats, traffic
from feedbench.bench import Bench
from feedbench.results import OURS, Row, row
from feedmodel.demo import rich
from feedops.features.load import bundle_spec, row_without_cells
from feedops.local.artifact import with_variables
from feedops.local.processes import LOCALHOST, free_port
from feedrank.features.packed_rows import ITEM, MARK_BYTES, RowLayout

Respond = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

DIRECTORY = "directory"
S3 = {f"S3, {get_ms} ms a GET": f"s3://models/{get_ms}" for get_ms in (0, 20)}
LOAD_S = "50"  # what a large bundle may take
ITEMS = 100
# One file for its key, too: https://docs.python.org/3/library/ssl.html#self-signed-certificates
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
    "-subj /CN={host} -addext subjectAltName=IP:{host} -out {path} -keyout {path}"
)
# By row: for how long an item is cached, and whether a user is read, whom no cache keeps.
CACHES = {"features from DynamoDB": ("0", True), "features from the cache": ("3600", False)}


def measure_bundles(bench: Bench) -> Iterator[Row]:
    """Init by the bundle's size, from a directory and from S3. The rows are of the model's own."""
    bundles = {OURS: (bench.bundle, traffic.requests(bench.bundle, 1, 1)[0])}
    for megabytes in bench.effort.bundle_mb:
        bundle = rich.publish(bench.scratch / f"bundle-{megabytes}", megabytes)
        bundles[f"{megabytes} MB"] = bundle, rich.requests(1, 1)[0]
    inits_ms = pd.DataFrame({s: asyncio.run(_inits_ms(bench, *b)) for s, b in bundles.items()})
    medians_ms = inits_ms.map(np.median).round(1)
    for source in S3:
        ratio = stats.ratio(inits_ms[OURS][source], inits_ms[OURS][DIRECTORY])
        from_s3, ms = medians_ms[OURS][source], medians_ms[OURS][DIRECTORY]
        yield row(f"start from {source}", ratio, f"{from_s3:.0f} ms, {ms:.0f} from a directory")
    bench.details["init_ms"] = medians_ms.drop(columns=OURS).to_dict()


async def _inits_ms(bench: Bench, bundle: Path, body: dict[str, Any]) -> dict[str, list[float]]:
    """In the emulator, by source and in turns."""

    async def get(request: web.BaseRequest) -> web.FileResponse:
        _, _, get_ms, name = request.path.split("/", 3)
        await asyncio.sleep(float(get_ms) / 1_000)
        return web.FileResponse(bundle / name)

    sources = {DIRECTORY: str(bundle), **S3}
    inits_ms: dict[str, list[float]] = {source: [] for source in sources}
    async with _serving(get) as url:
        for source, uri in [*sources.items()] * bench.effort.bundle_rounds:
            variables = {"MODEL_URI": uri, "AWS_ENDPOINT_URL": url, "MODEL_LOAD_SECONDS": LOAD_S}
            function = with_variables(bench.target, **variables)
            init_ms, _ = await bench.emulate(function, [traffic.event(body)])
            inits_ms[source].append(init_ms)
    return inits_ms


def measure_stores(bench: Bench) -> Iterator[Row]:
    """What a fetch of features costs the function's own processor."""
    yield from asyncio.run(_fetches(bench))


async def _fetches(bench: Bench) -> list[Row]:
    """From a table by TLS, whose rows have no values but all of their width."""
    certificate, rows = bench.scratch / "certificate.pem", list[Row]()
    machine.run(CERTIFICATE.format(host=LOCALHOST, path=certificate).split())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with _serving(_table(bench.bundle), context) as url:
        store = {"FEATURES_URI": "dynamodb://rows", "FEATURES_TIMEOUT_MS": "1000"}
        store |= {"AWS_ENDPOINT_URL": url, "AWS_CA_BUNDLE": str(certificate)}
        options = {"events": bench.events(ITEMS), **bench.effort.warm_blocks}
        for key, (cache_s, reads_user) in CACHES.items():
            function = with_variables(bench.target, **store, FEATURES_CACHE_S=cache_s)
            probe = partial(bench.probe, "fetches", function, reads_user=reads_user, **options)
            spent_ns = await asyncio.to_thread(probe)
            rows.append(row(key, stats.estimate(np.divide(spent_ns, 1e6))))
    return rows


def _table(bundle: Path) -> Respond:
    """Has a row for each key, a user's with pairs."""
    spec = bundle_spec(bundle)
    user, item, pair = (RowLayout(spec, source) for source in ("user", "item", "pair"))
    pairs = np.zeros(ITEMS, pair.pair_dtype)
    pairs[ITEM] = range(ITEMS)
    packed_pairs = pair.mark.to_bytes(MARK_BYTES, "little") + pairs.tobytes()
    time_s = {"t": {"N": str(time())}}
    of_user = {"v": _binary(row_without_cells(user)), "p": _binary(packed_pairs), **time_s}
    of_item = {"v": _binary(row_without_cells(item)), **time_s}

    async def respond(request: web.BaseRequest) -> web.Response:
        content = await request.json()
        if "Key" in content:
            answer = {"Item": content["Key"] | of_user}
        else:
            ((table, wanted),) = content["RequestItems"].items()
            answer = {"Responses": {table: [key | of_item for key in wanted["Keys"]]}}
        body = orjson.dumps(answer)
        return web.Response(body=body, headers={"x-amz-crc32": str(crc32(body))})

    return respond


def _binary(data: bytes) -> dict[str, str]:
    return {"B": b64encode(data).decode()}


@asynccontextmanager
async def _serving(respond: Respond, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Its URL."""
    runner, port = web.ServerRunner(web.Server(respond, access_log=None)), free_port()
    await runner.setup()
    try:
        await web.TCPSite(runner, LOCALHOST, port, ssl_context=context).start()
        yield f"{'https' if context else 'http'}://{LOCALHOST}:{port}"
    finally:
        await runner.cleanup()
