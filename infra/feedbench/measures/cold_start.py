"""What is deployed: from a fresh process to its first ranked response, where the time goes, and
its size."""

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd

from feedbench import stats
from feedbench.bench import COMPETITORS_PATH, Bench, command
from feedbench.probes import cold
from feedbench.results import PLAN, REST, Row, row
from feedops.local.emulator import Function
from feedops.stack import budget

ITEMS = 20
COLD = Path(cold.__file__)
TORCH_HANDLER = "feedbench.competitors.torch_handler"
IMPORTS = ("fastapi", "mangum", "numpy", "onnxruntime", "aws_lambda_powertools")
IMPORT_TIME = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)$", re.MULTILINE)


def measure(bench: Bench) -> Iterator[Row]:
    event, start = bench.events(ITEMS, 1), partial(_start, bench)
    handler, imports = start(bench.target, event, "handler"), start(bench.target, "", *IMPORTS)
    deployed = stats.by_turns({"handler": handler, "imports": imports}, bench.effort.cold_rounds)
    bench.say("cold starts of torch + MLflow + FastAPI")
    handler = start(bench.development, event, "handler")
    torch = start(bench.development, event, TORCH_HANDLER, paths=COMPETITORS_PATH)
    here = stats.by_turns({"handler": handler, "torch": torch}, bench.effort.torch_cold_rounds)
    yield row(
        "cold start / imports",
        stats.ratio(deployed["handler"], deployed["imports"]),
        f"{median(deployed['handler']):.0f} ms, {bench.target_name}",
    )
    yield row(
        "cold start / torch",
        stats.ratio(here["handler"], here["torch"]),
        f"{median(here['torch']):.0f} ms there, development environment",
    )
    bench.say("cold starts with a stopwatch")
    bench.details["cold_start"] = {
        "deployed_ms": {name: {"p50": median(ms)} for name, ms in deployed.items()},
        "waterfall_ms": _waterfall(bench, event),
    }


def _start(
    bench: Bench, function: Function, event: str, *modules: str, paths: tuple[Path, ...] = ()
) -> Callable[[], float]:
    """What starts a process that imports these modules, and calls the last one's handler where
    there is an event; it returns the milliseconds from the spawn until then."""
    result, environ = bench.scratch / "cold.txt", bench.environ(function, *paths)
    line = command(function, COLD, result, event, "", *modules)

    def start() -> float:
        spawned_ns = time.monotonic_ns()
        bench.run(line, environ)
        return (int(result.read_text().split()[1]) - spawned_ns) / 1e6

    return start


def _waterfall(bench: Bench, event: str) -> dict[str, float]:
    """Median milliseconds by stage."""
    samples = pd.DataFrame([stages(bench, event) for _ in range(bench.effort.stage_rounds)])
    return {str(stage): round(ms, 2) for stage, ms in samples.median().items()}


def stages(bench: Bench, event: str) -> dict[str, float]:
    """Milliseconds of one cold start: interpreter, imports, the plan's stages and what is left."""
    result, environ = bench.scratch / "cold.txt", bench.environ(bench.target)
    arguments = COLD, result, event, json.dumps(PLAN["stages"]["cold"]), "handler"
    spawned_ns = time.monotonic_ns()
    printed = bench.run(command(bench.target, "-X", "importtime", *arguments), environ)
    times, *spent = result.read_text().splitlines()
    started_ms, finished_ms = ((int(ns) - spawned_ns) / 1e6 for ns in times.split())
    by_stage = {name: int(ns) / 1e6 for name, ns in (line.split("\t") for line in spent)}
    first_ms = by_stage.pop("first request")
    parts_ms = {"interpreter": started_ms, **imports_ms(printed), **by_stage}
    rest_ms = finished_ms - sum(parts_ms.values()) - first_ms
    return {**parts_ms, REST: rest_ms, "first request": first_ms}


def imports_ms(printed: str) -> dict[str, float]:
    """Milliseconds by package, in the order of their first module. `-X importtime` prints for each
    module what it took without those that it imports; the handler's own body isn't counted."""
    spent_ms: defaultdict[str, float] = defaultdict(float)
    for microseconds, module in IMPORT_TIME.findall(printed.partition(cold.MARKER)[2]):
        top = module.partition(".")[0]
        is_standard = top in sys.stdlib_module_names or top.startswith("_")
        package = "standard library" if is_standard else top
        if top not in {"handler", "feedbench"}:
            spent_ms[f"import {package}"] += int(microseconds) / 1_000
    return dict(spent_ms)


def measure_size(bench: Bench) -> Iterator[Row]:
    """Unzipped megabytes of the built artifact by dependency, function and model."""
    measured = budget.measure()
    sizes = {**measured.dependencies, **measured.parts}
    del sizes[budget.PARTS["RuntimeLayer"]]  # its dependencies are listed
    note = f"the built artifact; Lambda's limit is {budget.LIMIT_BYTES / 1e6:.0f} MB"
    yield row("size", sum(sizes.values()) / 1e6, note)
    bench.details["size_bytes"] = dict(sorted(sizes.items(), key=lambda each: -each[1]))
