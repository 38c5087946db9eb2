"""The same rows through torch, ONNX Runtime and the handler."""

from collections.abc import Iterator

import numpy as np

from feedbench import traffic
from feedbench.bench import Bench
from feedbench.results import Row, row

SIZES = (1, 2, 5, 20, 50, 100)
EACH = 20


def measure(bench: Bench) -> Iterator[Row]:
    by_size = [traffic.requests(bench.bundle, items, EACH, with_time=True) for items in SIZES]
    bodies = [body for bodies in by_size for body in bodies]
    events = str(traffic.write_events(bench.scratch / "parity.json", bodies))
    options = {"events": events, "now_s": traffic.MOMENT_S}
    parity = bench.probe("environment.parity", bench.development, **options)
    apart = float(np.max(list(parity["apart"].values())))  # NaN stays one
    yield row("parity", apart, f"{parity['rows']:,} rows")
    bench.details["parity"] = parity
