"""The handler with ONNX Runtime compared with the same handler on torch: calls a second."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from feedbench import stats
from feedbench.bench import INFRA, Bench, by_turns, probe_command
from feedbench.results import Row, row
from feedbench.traffic import SIZES

ENGINES = ("onnx", "torch")


def measure(bench: Bench) -> Iterator[Row]:
    with ExitStack() as stack:
        serve = {engine: stack.enter_context(_environment(bench, engine)) for engine in ENGINES}
        samplers = {
            (items, engine): partial(serve[engine], file, bench.effort.engine_s)
            for file, items in enumerate(SIZES)
            for engine in ENGINES
        }
        rates = by_turns(samplers, bench.effort.engine_rounds)
    for items in SIZES:
        onnx, torch = (rates[items, engine] for engine in ENGINES)
        note = f"{stats.summary(onnx)['p50']:,.0f} calls/s"
        yield row(f"engine, {items} items", stats.ratio(onnx, torch), note)
    bench.details["engines_calls_per_s"] = {
        engine: {str(items): stats.summary(rates[items, engine]) for items in SIZES}
        for engine in ENGINES
    }


@contextmanager
def _environment(bench: Bench, engine: str) -> Iterator[Callable[[int, float], float]]:
    """What makes a process serve the n-th size for some seconds, and returns its calls a second.

    In the development environment: the artifact has no torch.
    """
    files = [bench.events(items) for items in SIZES]
    reads, writes = os.pipe()
    target, variables = bench.development, {"MODEL_ENGINE": engine, "OMP_NUM_THREADS": "1"}
    with (bench.scratch / f"{engine}.log").open("wb") as output, os.fdopen(reads, "rb") as answers:
        process = subprocess.Popen(
            probe_command(target, "environment.throughput", answer_to=writes, files=files),
            env=bench.environ(target, INFRA, variables=variables),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[writes],
        )
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
