"""One warm environment: compared with the model's bare run and with the minimum that any handler
must do, where its time goes, its throughput on either engine, its scores, its memory."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np

from feedbench import stats, traffic
from feedbench.bench import Bench
from feedbench.results import BARS, PLAN, REST, Row, row
from feedbench.traffic import MOMENT_S, SIZES
from feedops.errors import OperationError
from feedops.local.artifact import with_variables

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
    for key, yardstick in PLAN["yardsticks"].items():
        items, name = yardstick["items"], yardstick["name"]
        events = bench.events(items)
        ns = bench.probe("contests", events=events, now_s=MOMENT_S, **bench.effort.warm_blocks)
        us = {name: np.array(rounds) / 1_000 for name, rounds in ns.items()}  # by round and call
        times = {each: stats.ratio(us[each], us[name]) for each in ("handler", "core", "floor")}
        yield row(
            key,
            times["handler"],
            f"{np.median(us['handler']) / 1_000:.2f} ms; without event, log line and metrics: "
            f"{times['core'].value:.2f} x; an app behind the same adapter that would only parse, "
            f"run the model and answer: {times['floor'].value:.2f} x",
        )
        if (tail := f"warm, {items} items, p99 / p50") in BARS:
            yield row(tail, stats.tail_ratio(us["handler"]))
        for each, shown in (("handler", "handler"), (name, yardstick["label"])):
            curves_us[f"{shown}, {items} items"] = stats.distribution(us[each].ravel())
        parts_us[str(items)] = {
            shown: round(float(np.median(us[each])), 1) for each, shown in PLAN["contests"].items()
        }
        options = {"stages": PLAN["stages"]["warm"], "rest": REST, **bench.effort.warm_blocks}
        stages = bench.probe("stages", events=events, **options)
        stages_us[str(items)] = {name: round(ns / 1_000, 1) for name, ns in stages.items()}
    bench.details["warm_us"] = curves_us
    bench.details["warm_parts_us"] = dict(reversed(parts_us.items()))  # few items first
    bench.details["warm_stages_us"] = dict(reversed(stages_us.items()))


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
    requests = partial(traffic.requests, bench.bundle, count=PARITY_EACH)
    bodies = [body for items in PARITY_SIZES for body in requests(items)]
    moment = {"timestamp": datetime.fromtimestamp(MOMENT_S, UTC).isoformat()}
    bodies = [body | {"context": body["context"] | moment} for body in bodies]
    events = traffic.write_events(bench.scratch / "parity.json", bodies)
    apart = bench.probe("parity", bench.development, events=events, now_s=MOMENT_S)
    rows = sum(len(body["item_ids"]) for body in bodies)
    yield row("parity", apart, f"{rows:,} rows")


def measure_memory(bench: Bench) -> Iterator[Row]:
    """Resident memory, and what very many requests add to it."""
    files, effort = [bench.events(items) for items in MEMORY_SIZES], bench.effort
    readings_mb = partial(bench.probe, "memory", events=files)
    steady_mb = readings_mb(requests=effort.memory_requests, leak_bytes=0)
    leaked_mb = growth(readings_mb(requests=effort.leak_requests, leak_bytes=LEAK_BYTES))
    if not leaked_mb > GROWTH_BAR_MB:
        raise OperationError(f"the leaking control grew by {leaked_mb:.1f} MB: the check is blind")
    events = chain.from_iterable(json.loads(Path(file).read_bytes()) for file in files)
    _, peak_mb = asyncio.run(bench.emulate(bench.target, islice(cycle(events), WARM_CALLS)))
    yield row("memory", peak_mb, "peak, in the emulator")
    yield row(
        "memory growth",
        growth(steady_mb),
        f"{effort.memory_requests:,} requests; a control that leaks 1 KiB a request "
        f"gained {leaked_mb:.0f} MB over {effort.leak_requests:,} and is found out",
    )


def growth(readings_mb: list[float]) -> float:
    """From the first reading to the end, which is the median of the last tenth."""
    return float(np.median(readings_mb[-max(1, len(readings_mb) // 10) :])) - readings_mb[0]
