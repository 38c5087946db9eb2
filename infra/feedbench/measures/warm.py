"""One warm environment: compared with the model's bare run and with the minimum that any handler
must do, where its time goes, its throughput on either engine, its scores, its memory."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from feedbench import stats, traffic
from feedbench.bench import INFRA, Bench, by_turns, probe_command
from feedbench.results import BARS, PLAN, Row, row
from feedbench.traffic import MOMENT_S, SIZES
from feedops.errors import OperationError

MANY, FEW = 100, 5  # items
REST = "all else"
CONTESTS = {  # the probe's, as the report names them
    "handler": "the handler",
    "core": "without event, log line and metrics",
    "floor": "parse, run, answer behind the same adapter",
    "minimum": "json.loads, Pydantic, session.run, json.dumps",
    "run": "session.run",
}
DESCRIBED = {MANY: {"handler": "handler", "session.run": "run"}}
DESCRIBED[FEW] = {"handler": "handler", "minimum": "minimum"}
ENGINES = ("onnx", "torch")
PARITY_SIZES, PARITY_EACH = (1, 2, 5, 20, 50, 100), 20  # items, requests
MEMORY_SIZES = (5, 20, 50)  # items
WARM_CALLS = 300
LEAK_BYTES = 1_024  # a request
GROWTH_BAR_MB = BARS["memory growth"]["bar"]

Microseconds = dict[str, list[list[float]]]  # of each call, by what is called and round


def measure(bench: Bench) -> Iterator[Row]:
    """The handler and what it is made of, by turns; and its stages."""
    us = {items: _by_turns(bench, items) for items in (MANY, FEW)}
    calls_us = {(n, name): [*chain(*rounds)] for n in us for name, rounds in us[n].items()}
    p50_us = {key: stats.summary(calls)["p50"] for key, calls in calls_us.items()}
    for items, key, yardstick in (
        (MANY, "warm, 100 items / session.run", "run"),
        (FEW, "warm, 5 items / minimum", "minimum"),
    ):
        core, floor, handler = (
            stats.ratio(us[items][name], us[items][yardstick])
            for name in ("core", "floor", "handler")
        )
        yield row(
            key,
            handler,
            f"{p50_us[items, 'handler'] / 1_000:.2f} ms; without event, log line and metrics: "
            f"{core.value:.2f} x; an app behind the same adapter that would only parse, run the "
            f"model and answer: {floor.value:.2f} x",
        )
        if items == MANY:
            yield row("warm, 100 items, p99 / p50", stats.tail_ratio(us[MANY]["handler"]))
    bench.details["warm_us"] = {
        f"{label}, {items} items": stats.summary(calls) | {"curve": stats.curve(calls)}
        for items, labels in DESCRIBED.items()
        for label, calls in ((label, calls_us[items, name]) for label, name in labels.items())
    }
    bench.details["warm_parts_us"] = {
        str(items): {CONTESTS[name]: round(p50_us[items, name], 1) for name in CONTESTS}
        for items in (FEW, MANY)
    }
    bench.details["warm_stages_us"] = {str(items): _stages(bench, items) for items in (FEW, MANY)}


def _stages(bench: Bench, items: int) -> dict[str, float]:
    """Median microseconds of each, and what is left of the whole request."""
    bench.say(f"stages of a warm request, {items} items")
    options = {"stages": PLAN["stages"]["warm"], "rounds": bench.effort.warm_rounds // 2}
    calls = bench.effort.warm_calls
    medians = bench.probe("stages", events=bench.events(items), calls=calls, **options)
    stages_ns = medians["stages_ns"]
    rest_ns = medians["whole_ns"] - sum(stages_ns.values())
    return {name: round(ns / 1_000, 1) for name, ns in {**stages_ns, REST: rest_ns}.items()}


def _by_turns(bench: Bench, items: int) -> Microseconds:
    options = {"rounds": bench.effort.warm_rounds, "calls": bench.effort.warm_calls}
    ns = bench.probe("contests", events=bench.events(items), now_s=MOMENT_S, **options)
    return {name: (np.array(rounds) / 1_000).tolist() for name, rounds in ns.items()}


def measure_engines(bench: Bench) -> Iterator[Row]:
    """The handler with ONNX Runtime compared with the same handler on torch: calls a second."""
    with ExitStack() as stack:
        serve = {engine: stack.enter_context(_serving(bench, engine)) for engine in ENGINES}
        samplers = {
            (items, engine): partial(serve[engine], file, bench.effort.engine_s)
            for file, items in enumerate(SIZES)
            for engine in ENGINES
        }
        rates = by_turns(samplers, bench.effort.engine_rounds)
    summaries = {key: stats.summary(calls_per_s) for key, calls_per_s in rates.items()}
    for items in SIZES:
        ratio = stats.ratio(*(rates[items, engine] for engine in ENGINES))
        note = f"{summaries[items, 'onnx']['p50']:,.0f} calls/s"
        yield row(f"engine, {items} items", ratio, note)
    bench.details["engines_calls_per_s"] = {
        engine: {str(items): summaries[items, engine] for items in SIZES} for engine in ENGINES
    }


@contextmanager
def _serving(bench: Bench, engine: str) -> Iterator[Callable[[int, float], float]]:
    """What makes a process serve the n-th size for some seconds, and returns its calls a second.

    In the development environment: the artifact has no torch.
    """
    files = [bench.events(items) for items in SIZES]
    reads, writes = os.pipe()
    function = bench.development
    line = probe_command(function, "throughput", answer_to=writes, files=files)
    environ = bench.environ(function, INFRA, MODEL_ENGINE=engine, OMP_NUM_THREADS="1")
    with (bench.scratch / f"{engine}.log").open("wb") as log, os.fdopen(reads, "rb") as answers:
        files_options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
        process = subprocess.Popen(line, env=environ, pass_fds=[writes], **files_options)
        os.close(writes)

        def calls_per_s(file: int, seconds: float) -> float:
            assert process.stdin
            process.stdin.write(f"{file} {seconds}\n".encode())
            process.stdin.flush()
            return float(answers.readline())

        try:
            yield calls_per_s
        finally:
            process.kill()
            process.wait()


def measure_parity(bench: Bench) -> Iterator[Row]:
    """The same rows through torch, ONNX Runtime and the handler."""
    bodies: list[Any] = []
    for items in PARITY_SIZES:
        bodies += traffic.requests(bench.bundle, items, PARITY_EACH, with_time=True)
    events = str(traffic.write_events(bench.scratch / "parity.json", bodies))
    options = {"events": events, "now_s": traffic.MOMENT_S}
    parity = bench.probe("parity", bench.development, **options)
    apart = float(np.max(list(parity["apart"].values())))  # NaN stays one
    yield row("parity", apart, f"{parity['rows']:,} rows")
    bench.details["parity"] = parity


def measure_memory(bench: Bench) -> Iterator[Row]:
    """Resident memory, and what very many requests add to it."""
    files, effort = [bench.events(items) for items in MEMORY_SIZES], bench.effort
    requests = partial(bench.probe, "memory", events=files)
    steady = requests(requests=effort.memory_requests, leak_bytes=0)
    bench.say("memory: the control that leaks")
    leaking = requests(requests=effort.leak_requests, leak_bytes=LEAK_BYTES)
    leaked_mb = growth(leaking["readings_mb"])
    if not leaked_mb > GROWTH_BAR_MB:
        raise OperationError(f"the leaking control grew by {leaked_mb:.1f} MB: the check is blind")
    try:
        warm_mb, source = asyncio.run(_peak_mb(bench, files)), "peak, in the emulator"
    except OperationError as error:
        warm_mb, source = steady["readings_mb"][0], "in-process"
        reason = str(error).splitlines()[0]
        bench.notes.append(f"memory was read outside the emulator: {reason}")
    yield row("memory", warm_mb, source)
    yield row(
        "memory growth",
        growth(steady["readings_mb"]),
        f"{effort.memory_requests:,} requests; a control that leaks 1 KiB a request "
        f"gained {leaked_mb:.0f} MB over {effort.leak_requests:,} and is found out",
    )
    bench.details["memory"] = {"steady": steady, "leaking": leaking}


def growth(readings_mb: list[float]) -> float:
    """From the first reading to the end, which is the median of the last tenth."""
    last = sorted(readings_mb[-max(1, len(readings_mb) // 10) :])
    return last[len(last) // 2] - readings_mb[0]


async def _peak_mb(bench: Bench, files: list[str]) -> float:
    events = [event for file in files for event in json.loads(Path(file).read_bytes())]  # noqa: ASYNC240
    async with bench.environment("memory") as environment:
        for event in islice(cycle(events), WARM_CALLS):
            await environment.invoke(json.dumps(event).encode())
        return float(environment.peak_memory_mb())
