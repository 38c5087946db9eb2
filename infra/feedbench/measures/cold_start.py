"""Fresh process to first ranked response: how long, compared with what, and where the time goes."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from feedbench import stats
from feedbench.bench import COMPETITORS_PATH, INFRA, PROBES, Bench, by_turns, command
from feedbench.results import PLAN, Row, row
from feedops.errors import OperationError
from feedops.local.emulator import Function
from feedops.local.emulator_log import reports

ITEMS = 20
TORCH_HANDLER = "feedbench.competitors.torch_handler"
IMPORTS = ("fastapi", "mangum", "numpy", "onnxruntime", "aws_lambda_powertools")
IMPORTED_ALONE = sorted([*IMPORTS, "pydantic", "starlette"])


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
        "deployed_ms": {name: stats.summary(ms) for name, ms in deployed.items()},
        "development_ms": {name: stats.summary(ms) for name, ms in here.items()},
        "waterfall_ms": _waterfall(bench, event),
        "emulator_init_ms": list(_emulator_inits(bench, event)),
    }


def measure_imports(bench: Bench) -> Iterator[Row]:
    """Each package by itself in a fresh process, above a bare interpreter. No row: details only."""
    starts = {package: _start(bench, bench.target, "", package) for package in IMPORTED_ALONE}
    bare = {"": _start(bench, bench.target, "")}
    samples = by_turns(bare | starts, bench.effort.stage_rounds)
    bare_ms = median(samples.pop(""))
    alone_ms = {package: round(median(ms) - bare_ms, 1) for package, ms in samples.items()}
    bench.details["imports"] = {"interpreter_ms": bare_ms, "alone_ms": alone_ms}
    yield from ()


def _start(
    bench: Bench, function: Function, event: str, *modules: str, paths: tuple[Path, ...] = ()
) -> Callable[[], float]:
    """What starts a process that imports these modules, and calls the last one's handler where
    there is an event; it returns the milliseconds until then."""
    result = bench.scratch / "cold.txt"
    line = command(function, PROBES / "cold.py", result, event, *modules)
    return partial(bench.time_to_finish, line, bench.environ(function, *paths), result)


def _waterfall(bench: Bench, event: str) -> dict[str, float]:
    """Median milliseconds by stage, in the order in which they first ran."""
    result, environ = bench.scratch / "stages.json", bench.environ(bench.target, INFRA)
    stages = json.dumps(PLAN["stages"]["cold"])
    samples_ms: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(bench.effort.stage_rounds):
        arguments = PROBES / "cold_stages.py", result, event, stages, str(time.monotonic_ns())
        bench.run(command(bench.target, *arguments), environ)
        for stage, spent_ns in json.loads(result.read_bytes()).items():
            samples_ms[stage].append(spent_ns / 1e6)
    return {stage: round(median(samples), 2) for stage, samples in samples_ms.items()}


def _emulator_inits(bench: Bench, event: str) -> Iterator[float]:
    """INIT REPORT(durationMs) of the real emulator, with a note where there is none."""
    payload = json.dumps(json.loads(Path(event).read_bytes())[0]).encode()
    for _ in range(bench.effort.stage_rounds):
        try:
            yield asyncio.run(_init_ms(bench, payload))
        except OperationError as error:
            bench.notes.append(f"no INIT REPORT from the emulator: {str(error).splitlines()[0]}")
            return


async def _init_ms(bench: Bench, payload: bytes) -> float:
    async with bench.environment("emulator") as environment:
        await environment.invoke(payload)
    (report,) = reports(environment.log.read_text(errors="replace").splitlines())
    if report.init_ms is None:
        raise OperationError("it reported no init")
    return report.init_ms
