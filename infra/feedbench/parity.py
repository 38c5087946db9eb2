"""The same rows through torch, ONNX Runtime and the handler."""

import numpy as np

from feedbench import traffic
from feedbench.plan import Plan
from feedbench.probe import run_probe
from feedbench.results import Measurement, row

SIZES = (1, 2, 5, 20, 50, 100)
EACH = 20


def measure(plan: Plan) -> Measurement:
    bodies = [
        body
        for items in SIZES
        for body in traffic.requests(plan.bundle, items, EACH, with_time=True)
    ]
    events = traffic.write_events(plan.scratch / "parity.json", bodies)
    inputs = traffic.write_inputs(
        plan.scratch / "parity.npz", traffic.model_inputs(plan.bundle, bodies)
    )
    options = {"inputs": str(inputs), "events": str(events), "bundle": str(plan.bundle)}
    found = run_probe(plan, plan.development, "parity.py", options)
    apart: dict[str, float] = found["apart"]
    parity = row(
        "parity",
        "torch, ONNX Runtime and the handler: scores apart at most",
        float(np.max(list(apart.values()))),  # NaN stays one
        bar=1e-5,
        unit="",
        portable=False,
        note=f"{found['rows']:,} rows",
    )
    return Measurement((parity,), {"parity": found})
