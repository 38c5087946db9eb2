"""Fresh process to first ranked answer: how long, against what, and where the time goes."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from feedbench import probe, stats, traffic
from feedbench.plan import Plan
from feedbench.results import Measurement, row
from feedbench.target import RIVALS_PATH, Target
from feedops.errors import OperationError
from feedops.local.emulator import ExecutionEnvironment
from feedops.local.emulator_log import reports

ITEMS = 20
TORCH_HANDLER = "feedbench.rivals.torch_handler"

# What the stopwatch tells apart, by module and callable.
STAGES: Mapping[str, Mapping[str, str]] = {
    "feedrank.settings": {"Settings.from_environment": "settings"},
    "feedrank.bundle.layout": {"fetch_bundle": "bundle: read and hash"},
    "feedrank.features.snapshot": {"SnapshotStore.__init__": "feature snapshot"},
    "onnxruntime": {"InferenceSession.__init__": "ONNX session"},
    "feedrank.model.self_test": {"check_golden": "golden requests"},
    "feedrank.http.app": {"create_app": "app and routes"},
    "feedrank.telemetry.metrics": {"configure": "telemetry", "count_init": "telemetry"},
    "mangum": {"Mangum.__init__": "app and routes"},
}
IMPORTED_ALONE = (
    "aws_lambda_powertools",
    "fastapi",
    "mangum",
    "numpy",
    "onnxruntime",
    "pydantic",
    "starlette",
)

Start = Callable[[], float]


def measure(plan: Plan) -> Measurement:
    event = traffic.write_events(
        plan.scratch / "cold.json", traffic.requests(plan.bundle, ITEMS, 1)
    )
    effort = plan.effort
    deployed = _by_turns(
        {"handler": _handler(plan, plan.target, event), "imports": _imports(plan, plan.target)},
        effort.cold_rounds,
    )
    plan.say("cold starts of torch + MLflow + FastAPI")
    here = _by_turns(
        {
            "handler": _handler(plan, plan.development, event),
            "torch": _handler(plan, plan.development, event, TORCH_HANDLER),
        },
        effort.torch_cold_rounds,
    )
    plan.say("cold starts with a stopwatch")
    waterfall = _waterfall(plan, event)
    inits_ms, note = _emulator_inits(plan, event)
    rows = (
        row(
            "cold start / imports",
            "Cold start: fresh process to first ranked answer, against importing FastAPI, Mangum, "
            "ONNX Runtime, NumPy and Powertools only",
            stats.ratio(_one_each(deployed["handler"]), _one_each(deployed["imports"])),
            bar=1.25,
            note=f"{median(deployed['handler']):.0f} ms, {plan.target.name}",
        ),
        row(
            "cold start / torch",
            "Cold start against torch + MLflow + FastAPI doing the same",
            stats.ratio(_one_each(here["handler"]), _one_each(here["torch"])),
            bar=0.30,
            note=f"{median(here['torch']):.0f} ms there, {plan.development.name}",
        ),
    )
    details = {
        "cold_start": {
            "deployed_ms": {name: stats.summary(taken) for name, taken in deployed.items()},
            "development_ms": {name: stats.summary(taken) for name, taken in here.items()},
            "waterfall_ms": waterfall,
            "emulator_init_ms": inits_ms,
        }
    }
    return Measurement(rows, details, note)


def measure_imports(plan: Plan) -> Measurement:
    """Each package by itself in a fresh process, above a bare interpreter."""
    result = plan.scratch / "package.txt"
    environ = probe.environment(plan, plan.target)

    def start(package: str) -> Start:
        line = probe.command(plan.target, "cold_package.py", result, package, isolated=True)
        return lambda: probe.time_to_finish(plan, line, environ, result)

    starts = {package: start(package) for package in ("", *IMPORTED_ALONE)}
    taken = _by_turns(starts, plan.effort.stage_rounds)
    bare_ms = median(taken.pop(""))
    alone = {name: round(median(each) - bare_ms, 1) for name, each in taken.items()}
    return Measurement(details={"imports": {"interpreter_ms": bare_ms, "alone_ms": alone}})


def _by_turns(starts: Mapping[str, Start], rounds: int) -> dict[str, list[float]]:
    """Milliseconds. A first round, which warms the page cache and compiles, is left out."""
    taken: dict[str, list[float]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name, start in starts.items():
            spent_ms = start()
            if number:
                taken[name].append(spent_ms)
    return taken


def _one_each(samples: list[float]) -> list[list[float]]:
    return [[sample] for sample in samples]


def _handler(plan: Plan, target: Target, event: Path, module: str = "handler") -> Start:
    result = plan.scratch / "cold.txt"
    line = probe.command(target, "cold_handler.py", result, event, module, isolated=True)
    paths = () if module == "handler" else RIVALS_PATH
    environ = probe.environment(plan, target, None, *paths)
    return lambda: probe.time_to_finish(plan, line, environ, result)


def _imports(plan: Plan, target: Target) -> Start:
    result = plan.scratch / "cold.txt"
    line = probe.command(target, "cold_imports.py", result, isolated=True)
    environ = probe.environment(plan, target)
    return lambda: probe.time_to_finish(plan, line, environ, result)


def _waterfall(plan: Plan, event: Path) -> dict[str, float]:
    """Median milliseconds by stage, in the order in which they first ran."""
    result = plan.scratch / "stages.json"
    environ = probe.environment(plan, plan.target)
    spent: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(plan.effort.stage_rounds):
        line = probe.command(
            plan.target,
            "cold_stages.py",
            *(result, event, str(time.monotonic_ns()), json.dumps(STAGES)),
        )
        probe.run_line(line, environ, plan.scratch / "output.log")
        found: dict[str, int] = json.loads(result.read_bytes())
        for stage, taken_ns in found.items():
            spent[stage].append(taken_ns / 1e6)
    return {stage: round(median(taken), 2) for stage, taken in spent.items()}


def _emulator_inits(plan: Plan, event: Path) -> tuple[list[float], tuple[str, ...]]:
    """INIT REPORT(durationMs) of the real emulator, and a word where there is none."""
    inits_ms = []
    payload = json.dumps(json.loads(event.read_bytes())[0]).encode()
    for _ in range(plan.effort.stage_rounds):
        try:
            inits_ms.append(asyncio.run(_init_ms(plan, payload)))
        except OperationError as error:
            return inits_ms, (f"no INIT REPORT from the emulator: {str(error).splitlines()[0]}",)
    return inits_ms, ()


async def _init_ms(plan: Plan, payload: bytes) -> float:
    log = plan.scratch / "emulator.log"
    log.unlink(missing_ok=True)
    environment = await ExecutionEnvironment.start(
        plan.target.on_emulator.function(plan.variables),
        log=log,
        temporary=plan.scratch / "emulator",
    )
    try:
        await environment.invoke(payload)
    finally:
        await environment.stop()
    (report,) = reports(log.read_text(errors="replace").splitlines())
    if report.init_ms is None:
        raise OperationError("it reported no init")
    return report.init_ms
