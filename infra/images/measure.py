"""How long an inference takes by the number of its items, with each engine on the CPU and the GPU:
`python infra/images/measure.py BUNDLE [SECONDS PER FIGURE]`, on the machine that would serve."""

import asyncio
import json
import os
import sys
from math import inf
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import numpy as np

from feedrank.bundle.layout import GOLDEN
from feedrank.domain import FloatArray, Query
from feedrank.errors import FeedrankError
from feedrank.model.load import Model, load_model
from feedrank.settings import Settings

SIZES = (1, 10, 50, 100, 500, 2_048)  # items; past 100 a batch of several requests
ENGINES = [("onnx", "cpu"), ("torch", "cpu"), ("torch", "cuda"), ("onnx", "cuda")]


def inputs_of(model: Model, bundle: str) -> dict[str, FloatArray]:
    """Of the golden request with the most items, so that a row of an item is told from a user's."""
    cases = json.loads(Path(bundle, GOLDEN).read_bytes())["cases"]
    case = max(cases, key=lambda case: len(case["item_ids"]))
    sent = model.candidates.read(case.get("features", {}), len(case["item_ids"]))
    query = Query(case["user_id"], case["item_ids"], case["context"], case["time_s"], sent)
    return model.matrix.build(query, asyncio.run(model.features.fetch(query, inf)))


def seconds(model: Model, inputs: dict[str, FloatArray], items: int, for_s: float) -> list[float]:
    most = max(map(len, inputs.values()))
    sized = {
        name: np.resize(matrix, (items, *matrix.shape[1:])) if len(matrix) == most else matrix
        for name, matrix in inputs.items()
    }
    times, until_s = [], perf_counter() + for_s
    while len(times) < 12 or perf_counter() < until_s:  # noqa: PLR2004 the first two don't count
        started_s = perf_counter()
        model.engine.score(sized)
        times.append(perf_counter() - started_s)
    return times[2:]


def main(bundle: str, for_s: float) -> None:
    print("| engine | items | p50 ms | p99 ms | items/s |\n| --- | --- | --- | --- | --- |")
    for engine, device in ENGINES:
        variables = {"MODEL_URI": bundle, "MODEL_ENGINE": engine, "ENGINE_DEVICE": device}
        try:
            model = load_model(bundle, "", Settings.from_environment({**os.environ, **variables}))
        except (FeedrankError, ImportError) as error:
            print(f"| {engine}, {device} | not measured: {error} | | | |")
            continue
        inputs = inputs_of(model, bundle)
        for items in SIZES if model.manifest.batches else SIZES[:4]:
            cuts = quantiles(seconds(model, inputs, items, for_s), n=100)
            row = f"{1e3 * cuts[49]:.3f} | {1e3 * cuts[98]:.3f} | {items / cuts[49]:,.0f}"
            print(f"| {engine}, {device} | {items} | {row} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float((sys.argv[2:] or ["2"])[0]))
