"""One warm environment: compared with the model's bare run and with the minimum that any handler
must do, where its time goes, its throughput on either engine, its scores, its memory."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from feedbench import stats, traffic
from feedbench.bench import Bench
from feedbench.results import BARS, PLAN, REST, Row, row
from feedbench.traffic import MOMENT_S, SIZES
from feedops.errors import OperationError
from feedops.local.artifact import in_emulator, with_variables

MANY, FEW = 100, 5  # items
CONTESTS = {  # the probe's, as the report names them
    "handler": "the handler",
    "core": "without event, log line and metrics",
    "floor": "parse, run, answer behind the same adapter",
    "minimum": "json.loads, Pydantic, session.run, json.dumps",
    "run": "session.run",
}
# By row: items, and what the handler is compared with; in the picture, the latter's name.
YARDSTICKS = {
    "warm, 100 items / session.run": (MANY, "run", "session.run"),
    "warm, 5 items / minimum": (FEW, "minimum", "minimum"),
}
ENGINES = ("onnx", "torch")
LONE_THREAD = {"OMP_NUM_THREADS": "1", "MODEL_LOAD_SECONDS": "50"}  # torch takes long to load
PARITY_SIZES, PARITY_EACH = (1, 2, 5, 20, 50, 100), 20  # items, requests
MEMORY_SIZES = (5, 20, 50)  # items
WARM_CALLS = 300
LEAK_BYTES = 1_024  # a request
GROWTH_BAR_MB = BARS["memory growth"]["bar"]


def measure(bench: Bench) -> Iterator[Row]:
    """The handler and what it is made of, by turns; and its stages."""
    curves_us, parts_us, stages_us = {}, {}, {}
    for key, (items, yardstick, label) in YARDSTICKS.items():
        us = _by_turns(bench, items)
        core, floor, handler = (
            stats.ratio(us[name], us[yardstick]) for name in ("core", "floor", "handler")
        )
        yield row(
            key,
            handler,
            f"{np.median(us['handler']) / 1_000:.2f} ms; without event, log line and metrics: "
            f"{core.value:.2f} x; an app behind the same adapter that would only parse, run the "
            f"model and answer: {floor.value:.2f} x",
        )
        if items == MANY:
            yield row("warm, 100 items, p99 / p50", stats.tail_ratio(us["handler"]))
        for name, shown in (("handler", "handler"), (yardstick, label)):
            curves_us[f"{shown}, {items} items"] = stats.distribution([*chain(*us[name])])
        parts_us[str(items)] = {
            shown: round(float(np.median(us[name])), 1) for name, shown in CONTESTS.items()
        }
        stages_us[str(items)] = _stages(bench, items)
    bench.details["warm_us"] = curves_us
    bench.details["warm_parts_us"] = dict(reversed(parts_us.items()))  # few items first
    bench.details["warm_stages_us"] = dict(reversed(stages_us.items()))


def _by_turns(bench: Bench, items: int) -> dict[str, list[list[float]]]:
    """Microseconds of each call, by what is called and round."""
    ns = bench.probe("contests", events=bench.events(items), now_s=MOMENT_S, **bench.blocks)
    return {name: (np.array(rounds) / 1_000).tolist() for name, rounds in ns.items()}


def _stages(bench: Bench, items: int) -> dict[str, float]:
    """Median microseconds of each, and what is left of the whole request."""
    bench.say(f"stages of a warm request, {items} items")
    options = {"stages": PLAN["stages"]["warm"], **bench.blocks}
    medians = bench.probe("stages", events=bench.events(items), **options)
    stages_ns = medians["stages_ns"]
    rest_ns = medians["whole_ns"] - sum(stages_ns.values())
    return {name: round(ns / 1_000, 1) for name, ns in {**stages_ns, REST: rest_ns}.items()}


def measure_engines(bench: Bench) -> Iterator[Row]:
    """The handler with ONNX Runtime compared with the same handler on torch: calls a second.

    In the development environment: the artifact has no torch.
    """
    files = {items: bench.events(items) for items in SIZES}
    options = {"events": [*files.values()], "rounds": 1, "calls": bench.effort.engine_calls}
    samplers = {}
    for engine in ENGINES:
        function = with_variables(bench.development, **LONE_THREAD, MODEL_ENGINE=engine)
        samplers[engine] = partial(bench.probe, "latency", function, **options)
    rounds = stats.by_turns(samplers, bench.effort.engine_rounds)
    for items, file in files.items():
        onnx, torch = (
            [1e9 / np.median(spent_ns[file]) for spent_ns in rounds[engine]] for engine in ENGINES
        )
        note = f"{np.median(onnx):,.0f} calls/s"
        yield row(f"engine, {items} items", stats.ratio(onnx, torch), note)


def measure_parity(bench: Bench) -> Iterator[Row]:
    """The same rows through torch, ONNX Runtime and the handler."""
    bodies: list[Any] = []
    for items in PARITY_SIZES:
        bodies += traffic.requests(bench.bundle, items, PARITY_EACH, with_time=True)
    events = traffic.write_events(bench.scratch / "parity.json", bodies)
    apart = bench.probe("parity", bench.development, events=events, now_s=MOMENT_S)
    rows = sum(len(body["item_ids"]) for body in bodies)
    yield row("parity", apart, f"{rows:,} rows")


def measure_memory(bench: Bench) -> Iterator[Row]:
    """Resident memory, and what very many requests add to it."""
    files, effort = [bench.events(items) for items in MEMORY_SIZES], bench.effort
    readings_mb = partial(bench.probe, "memory", events=files)
    steady_mb = readings_mb(requests=effort.memory_requests, leak_bytes=0)
    bench.say("memory: the control that leaks")
    leaked_mb = growth(readings_mb(requests=effort.leak_requests, leak_bytes=LEAK_BYTES))
    if not leaked_mb > GROWTH_BAR_MB:
        raise OperationError(f"the leaking control grew by {leaked_mb:.1f} MB: the check is blind")
    yield row("memory", asyncio.run(_peak_mb(bench, files)), "peak, in the emulator")
    yield row(
        "memory growth",
        growth(steady_mb),
        f"{effort.memory_requests:,} requests; a control that leaks 1 KiB a request "
        f"gained {leaked_mb:.0f} MB over {effort.leak_requests:,} and is found out",
    )


def growth(readings_mb: list[float]) -> float:
    """From the first reading to the end, which is the median of the last tenth."""
    return float(np.median(readings_mb[-max(1, len(readings_mb) // 10) :])) - readings_mb[0]


async def _peak_mb(bench: Bench, files: list[str]) -> float:
    events = [event for file in files for event in json.loads(Path(file).read_bytes())]  # noqa: ASYNC240
    async with in_emulator(bench.target, bench.scratch) as environment:
        for event in islice(cycle(events), WARM_CALLS):
            await environment.invoke(json.dumps(event).encode())
        return float(environment.peak_memory_mb())
