"""One warm environment: its throughput on either engine, its scores, its memory."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from feedbench import stats, traffic
from feedbench.bench import INFRA, Bench, by_turns, probe_command
from feedbench.results import BARS, Row, row
from feedbench.traffic import SIZES
from feedops.errors import OperationError

ENGINES = ("onnx", "torch")
PARITY_SIZES, PARITY_EACH = (1, 2, 5, 20, 50, 100), 20  # items, requests
MEMORY_SIZES = (5, 20, 50)  # items
WARM_CALLS = 300
LEAK_BYTES = 1_024  # a request
GROWTH_BAR_MB = BARS["memory growth"]["bar"]


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
    line = probe_command(function, "environment.throughput", answer_to=writes, files=files)
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
    parity = bench.probe("environment.parity", bench.development, **options)
    apart = float(np.max(list(parity["apart"].values())))  # NaN stays one
    yield row("parity", apart, f"{parity['rows']:,} rows")
    bench.details["parity"] = parity


def measure_memory(bench: Bench) -> Iterator[Row]:
    """Resident memory, and what very many requests add to it."""
    files, effort = [bench.events(items) for items in MEMORY_SIZES], bench.effort
    requests = partial(bench.probe, "environment.memory", events=files)
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
