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
from feedbench.target import Target
from feedops.errors import OperationError
from feedops.local.emulator_log import reports

ITEMS = 20
TORCH_HANDLER = "feedbench.competitors.torch_handler"
IMPORTS = ("fastapi", "mangum", "numpy", "onnxruntime", "aws_lambda_powertools")
IMPORTED_ALONE = tuple(sorted((*IMPORTS, "pydantic", "starlette")))


def measure(bench: Bench) -> Iterator[Row]:
    event, effort = bench.events(ITEMS, 1), bench.effort
    torch = _start(bench, bench.development, event, TORCH_HANDLER, paths=COMPETITORS_PATH)
    deployed = by_turns(
        {
            "handler": _start(bench, bench.target, event, "handler"),
            "imports": _start(bench, bench.target, "", *IMPORTS),
        },
        effort.cold_rounds,
    )
    bench.say("cold starts of torch + MLflow + FastAPI")
    here = by_turns(
        {"handler": _start(bench, bench.development, event, "handler"), "torch": torch},
        effort.torch_cold_rounds,
    )
    yield row(
        "cold start / imports",
        stats.ratio(deployed["handler"], deployed["imports"]),
        f"{median(deployed['handler']):.0f} ms, {bench.target.name}",
    )
    yield row(
        "cold start / torch",
        stats.ratio(here["handler"], here["torch"]),
        f"{median(here['torch']):.0f} ms there, {bench.development.name}",
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
    bare = _start(bench, bench.target, "")
    alone = {package: _start(bench, bench.target, "", package) for package in IMPORTED_ALONE}
    samples = by_turns({"": bare, **alone}, bench.effort.stage_rounds)
    bare_ms = median(samples.pop(""))
    alone_ms = {package: round(median(ms) - bare_ms, 1) for package, ms in samples.items()}
    bench.details["imports"] = {"interpreter_ms": bare_ms, "alone_ms": alone_ms}
    yield from ()


def _start(
    bench: Bench, target: Target, event: str, *modules: str, paths: tuple[Path, ...] = ()
) -> Callable[[], float]:
    """What starts a process that imports these modules, and calls the last one's handler where
    there is an event; it returns the milliseconds until then."""
    result = bench.scratch / "cold.txt"
    line = command(target, PROBES / "cold.py", result, event, *modules)
    return partial(bench.time_to_finish, line, bench.environ(target, *paths), result)


def _waterfall(bench: Bench, event: str) -> dict[str, float]:
    """Median milliseconds by stage, in the order in which they first ran."""
    result = bench.scratch / "stages.json"
    environ = bench.environ(bench.target, INFRA)
    samples_ms: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(bench.effort.stage_rounds):
        arguments = result, event, str(time.monotonic_ns()), json.dumps(PLAN["stages"]["cold"])
        bench.run(command(bench.target, PROBES / "cold_stages.py", *arguments), environ)
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
