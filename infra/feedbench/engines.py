"""The handler with ONNX Runtime against the same handler with torch: calls a second."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from feedbench import probe, stats, traffic
from feedbench.plan import Plan
from feedbench.results import Measurement, row

EVENTS = 64
BARS = {5: 1.3, 50: 1.5, 100: 1.5}
WARM_UP_S = 0.3


class Environment:
    """A process that serves a number of items for a while when told to."""

    def __init__(self, orders: IO[bytes], answers: IO[bytes]) -> None:
        self._orders = orders
        self._answers = answers

    def calls_per_s(self, file: int, seconds: float) -> float:
        self._orders.write(f"{file} {seconds}\n".encode())
        self._orders.flush()
        return float(self._answers.readline())


def measure(plan: Plan) -> Measurement:
    taken: dict[str, dict[int, list[float]]] = {
        engine: {items: [] for items in BARS} for engine in ("onnx", "torch")
    }
    with ExitStack() as stack:
        environments = {engine: stack.enter_context(_environment(plan, engine)) for engine in taken}
        for environment in environments.values():
            for file, _ in enumerate(BARS):
                environment.calls_per_s(file, WARM_UP_S)
        for _ in range(plan.effort.engine_rounds):
            for file, items in enumerate(BARS):
                for engine, environment in environments.items():
                    calls = environment.calls_per_s(file, plan.effort.engine_s)
                    taken[engine][items].append(calls)
    rows = tuple(
        row(
            f"engine, {items} items",
            f"Handler calls/s of one warm environment against the same handler on torch, "
            f"{items} items",
            stats.ratio([[n] for n in taken["onnx"][items]], [[n] for n in taken["torch"][items]]),
            bar=bar,
            better="higher",
            note=f"{stats.summary(taken['onnx'][items])['p50']:,.0f} calls/s",
        )
        for items, bar in BARS.items()
    )
    details = {
        engine: {str(items): stats.summary(calls) for items, calls in by_items.items()}
        for engine, by_items in taken.items()
    }
    return Measurement(rows, {"engines_calls_per_s": details})


@contextmanager
def _environment(plan: Plan, engine: str) -> Iterator[Environment]:
    """In the development environment: the artifact has no torch."""
    files = [
        traffic.write_events(
            plan.scratch / f"events-{items}.json", traffic.requests(plan.bundle, items, EVENTS)
        )
        for items in BARS
    ]
    reads, writes = os.pipe()
    target = plan.development
    variables = {"MODEL_ENGINE": engine, "OMP_NUM_THREADS": "1"}
    with (plan.scratch / f"{engine}.log").open("wb") as output, os.fdopen(reads, "rb") as answers:
        process = subprocess.Popen(
            probe.command(target, "throughput.py", str(writes), *files),
            env=probe.environment(plan, target, variables, probe.INFRA),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[writes],
        )
        os.close(writes)
        try:
            assert process.stdin
            yield Environment(process.stdin, answers)
        finally:
            process.kill()
            process.wait()
