"""What is deployed: from a fresh process to its first ranked response, where the time goes, and
its size."""

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd

from feedbench import stats
from feedbench.bench import COMPETITORS_PATH, Bench
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
    event, target, here = bench.events(ITEMS, 1), bench.target, bench.development
    ours_ms, bare_ms = _by_turns(
        bench.effort.cold_rounds,
        partial(_start, bench, target, event, "handler"),
        partial(_start, bench, target, "", *IMPORTS),
    )
    yield row(
        "cold start / imports",
        stats.ratio(ours_ms, bare_ms),
        f"{median(ours_ms):.0f} ms, {bench.target_name}",
    )
    here_ms, torch_ms = _by_turns(
        bench.effort.torch_cold_rounds,
        partial(_start, bench, here, event, "handler"),
        partial(_start, bench, here, event, TORCH_HANDLER, paths=COMPETITORS_PATH),
    )
    yield row(
        "cold start / torch",
        stats.ratio(here_ms, torch_ms),
        f"{median(torch_ms):.0f} ms there, development environment",
    )
    waterfall = pd.DataFrame([stages(bench, event) for _ in range(bench.effort.stage_rounds)])
    deployed_ms = {"handler": median(ours_ms), "imports": median(bare_ms)}
    bench.details["cold_start"] = {
        "deployed_ms": {name: {"p50": ms} for name, ms in deployed_ms.items()},
        "waterfall_ms": waterfall.median().round(2).to_dict(),
    }


def _by_turns(rounds: int, *starts: Callable[[], dict[str, float]]) -> Iterator[list[float]]:
    """Milliseconds from the spawn to the end, of each."""
    for samples in stats.by_turns(dict(enumerate(starts)), rounds).values():
        yield [ms["end"] for ms in samples]


def _start(
    bench: Bench,
    function: Function,
    event: str,
    *modules: str,
    paths: tuple[Path, ...] = (),
    stages: Mapping[str, list[str]] | None = None,
) -> dict[str, float]:
    """Milliseconds of a process that imports these modules, and calls the last one's handler where
    there is an event: of its parts and from the spawn to its end. With stages, there is a
    stopwatch at imports and at these."""
    flags = ("-X", "importtime") if stages else ()
    line = (*flags, COLD, bench.result, event, json.dumps(stages or {}), *modules)
    spawned_ns = time.monotonic_ns()
    printed = bench.run(function, line, *paths)
    clocks = json.loads(bench.result.read_bytes())
    started_ms, end_ms = ((ns - spawned_ns) / 1e6 for ns in clocks["times_ns"])
    spent_ms = {stage: sum(ns) / 1e6 for stage, ns in clocks["spent_ns"].items()}
    return {"interpreter": started_ms, **imports_ms(printed), **spent_ms, "end": end_ms}


def stages(bench: Bench, event: str) -> dict[str, float]:
    """Milliseconds of one cold start: interpreter, imports, the plan's stages and what is left."""
    ms = _start(bench, bench.target, event, "handler", stages=PLAN["stages"]["cold"])
    end_ms, first_ms = ms.pop("end"), ms.pop("first request")
    return {**ms, REST: end_ms - sum(ms.values()) - first_ms, "first request": first_ms}


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
