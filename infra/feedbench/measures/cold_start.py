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

from feedbench import stats
from feedbench.bench import COMPETITORS_PATH, INFRA, PROBES, Bench, by_turns, command
from feedbench.probes.cold_stages import MARKER
from feedbench.results import PLAN, REST, Row, row
from feedops.local.emulator import Function
from feedops.stack import budget

ITEMS = 20
TORCH_HANDLER = "feedbench.competitors.torch_handler"
IMPORTS = ("fastapi", "mangum", "numpy", "onnxruntime", "aws_lambda_powertools")
IMPORT_TIME = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)$", re.MULTILINE)


def measure(bench: Bench) -> Iterator[Row]:
    event, start = bench.events(ITEMS, 1), partial(_start, bench)
    handler, imports = start(bench.target, event, "handler"), start(bench.target, "", *IMPORTS)
    deployed = by_turns({"handler": handler, "imports": imports}, bench.effort.cold_rounds)
    bench.say("cold starts of torch + MLflow + FastAPI")
    handler = start(bench.development, event, "handler")
    torch = start(bench.development, event, TORCH_HANDLER, paths=COMPETITORS_PATH)
    here = by_turns({"handler": handler, "torch": torch}, bench.effort.torch_cold_rounds)
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
    there is an event; it returns the milliseconds until then."""
    result = bench.scratch / "cold.txt"
    line = command(function, PROBES / "cold.py", result, event, *modules)
    return partial(bench.time_to_finish, line, bench.environ(function, *paths), result)


def _waterfall(bench: Bench, event: str) -> dict[str, float]:
    """Median milliseconds by stage."""
    samples_ms: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(bench.effort.stage_rounds):
        for stage, spent_ms in stages(bench, event).items():
            samples_ms[stage].append(spent_ms)
    return {stage: round(median(samples), 2) for stage, samples in samples_ms.items()}


def stages(bench: Bench, event: str) -> dict[str, float]:
    """Milliseconds of one cold start: interpreter, imports, the plan's stages and what is left."""
    result, environ = bench.scratch / "stages.json", bench.environ(bench.target, INFRA)
    script = PROBES / "cold_stages.py", result, event, json.dumps(PLAN["stages"]["cold"])
    spawned_ns = time.monotonic_ns()
    printed = bench.run(command(bench.target, "-X", "importtime", *script), environ)
    times = json.loads(result.read_bytes())
    stages_ms = {stage: ns / 1e6 for stage, ns in times["stages"].items()}
    first_ms = stages_ms.pop("first request")
    parts_ms = {"interpreter": (times["started"] - spawned_ns) / 1e6, **imports_ms(printed)}
    parts_ms |= stages_ms
    rest_ms = (times["finished"] - spawned_ns) / 1e6 - sum(parts_ms.values()) - first_ms
    return {**parts_ms, REST: rest_ms, "first request": first_ms}


def imports_ms(printed: str) -> dict[str, float]:
    """Milliseconds by package, in the order of their first module. `-X importtime` prints for each
    module what it took without those that it imports; the handler's own body isn't counted."""
    spent_ms: defaultdict[str, float] = defaultdict(float)
    for microseconds, module in IMPORT_TIME.findall(printed.partition(MARKER)[2]):
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
