"""The same app on a plain web server, against other servers with the same model: requests/s.

All of them run at once, one worker each, and are driven by turns; who isn't driven is idle.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from feedbench import generator, machine, stats, traffic
from feedbench.plan import Plan
from feedbench.results import FLOOR, OURS, Measurement, Row, row
from feedbench.target import RIVALS_ENVIRONMENT, RIVALS_PATH
from feedops.errors import OperationError, StartError
from feedops.local.processes import LOCALHOST, Process, free_port, tail
from feedops.workspace import FUNCTION

BARS = {5: 1.5, 50: 2.0, 100: 2.5}  # against the servers that run torch
ONNX_BARS = {5: 1.25, 50: 1.7, 100: 2.0}
BODIES = 128
ONNX_FASTAPI = "ONNX Runtime + FastAPI"  # rows of its own: it is what this project builds on
LEAVES_OUT = "writes no decision record, log line or metric (ours: all three)"
START_TIMEOUT_S = 120.0
WARM_UP_S = 1.0
PACKAGES = ("bentoml", "fastapi", "litserve", "mlflow", "torch", "uvicorn", "uvloop")


@dataclass(frozen=True, slots=True)
class Contestant:
    """`package` is what its environment needs beside torch and FastAPI. `command` takes the Python
    and a port."""

    name: str
    package: str
    command: Callable[[str, str], list[str]]
    path: str = "/predict"
    takes_matrix: bool = False


def uvicorn(app: str) -> Callable[[str, str], list[str]]:
    def command(python: str, port: str) -> list[str]:
        options = ["--no-access-log", "--log-level", "warning", "--host", LOCALHOST, "--port", port]
        return [python, "-m", "uvicorn", app, *options]

    return command


def _mlflow(python: str, port: str) -> list[str]:
    options = ["--env-manager", "local", "--workers", "1", "--host", LOCALHOST, "--port", port]
    bundle = "."  # its working directory
    return [python, "-m", "mlflow", "models", "serve", "--model-uri", bundle, *options]


def _bentoml(python: str, port: str) -> list[str]:
    service = "feedbench.rivals.bento_service:Ranker"
    options = ["--host", LOCALHOST, "--port", port, "--working-dir", str(RIVALS_PATH[0])]
    return [python, "-m", "bentoml", "serve", service, *options]


def _litserve(python: str, port: str) -> list[str]:
    return [python, "-m", "feedbench.rivals.lit_server", port]


CONTESTANTS = (  # in the order of their turns: what is compared most stands next to ours
    Contestant(OURS, "mangum", uvicorn("handler:app")),
    Contestant("torch + FastAPI", "torch", uvicorn("feedbench.rivals.torch_fastapi:app")),
    Contestant(FLOOR, "orjson", uvicorn("feedbench.floor:app")),
    Contestant(ONNX_FASTAPI, "onnxruntime", uvicorn("feedbench.rivals.onnx_fastapi:app")),
    Contestant("MLflow", "mlflow", _mlflow, "/invocations", takes_matrix=True),
    Contestant("BentoML", "bentoml", _bentoml),
    Contestant("LitServe", "litserve", _litserve),
)


def measure(plan: Plan) -> Measurement:
    python = str(plan.rivals or sys.executable)
    present = [each for each in CONTESTANTS if _has(python, each.package)]
    missing = [each.name for each in CONTESTANTS if each not in present]
    notes = [
        f"skipped: {name}, which {RIVALS_ENVIRONMENT.name} would hold (`make bench-rivals`)"
        for name in missing
    ]
    inputs = len(traffic.spec_of(plan.bundle).inputs)
    if inputs > 1:
        notes += [
            f"skipped: {each.name}, which takes one matrix, and the model reads {inputs}"
            for each in present
            if each.takes_matrix
        ]
        present = [each for each in present if not each.takes_matrix]
    loads, failed = asyncio.run(_contest(plan, present, python))
    rates = {
        name: {items: [load.requests_per_s for load in rounds] for items, rounds in sizes.items()}
        for name, sizes in loads.items()
    }
    details = {
        "generator": generator.name(),
        "connections": generator.CONNECTIONS,
        "versions": machine.versions_in(Path(python), PACKAGES),
        "requests_per_s": _by_size(loads, lambda load: load.requests_per_s),
        "p50_ms": _by_size(loads, lambda load: load.p50_ms),
        "p99_ms": _by_size(loads, lambda load: load.p99_ms),
    }
    return Measurement(tuple(rows_of(rates)), {"servers": details}, (*notes, *failed))


Loads = dict[str, dict[int, list[generator.Load]]]
Rates = Mapping[str, Mapping[int, Sequence[float]]]  # requests/s by name and items, one a round


def rows_of(rates: Rates) -> Iterator[Row]:
    rivals = [name for name in rates if name not in {OURS, FLOOR, ONNX_FASTAPI}]
    for items, bar in BARS.items():
        best = max(rivals, key=lambda name: stats.estimate(rates[name][items]).value)
        floor = _ratio(rates, FLOOR, best, items).value
        yield row(
            f"server, {items} items",
            against_torch(items),
            _ratio(rates, OURS, best, items),
            bar=bar,
            better="higher",
            note=note_on_torch(stats.estimate(rates[OURS][items]).value, best, floor),
        )
    if ONNX_FASTAPI not in rates:
        return
    for items, bar in ONNX_BARS.items():
        yield row(
            f"server on ONNX, {items} items",
            against_onnx(items),
            _ratio(rates, OURS, ONNX_FASTAPI, items),
            bar=bar,
            better="higher",
            note=note_on_onnx(stats.estimate(rates[ONNX_FASTAPI][items]).value),
        )


def against_torch(items: int) -> str:
    return (
        "The app under uvicorn, one worker, against the fastest of torch + FastAPI, MLflow, "
        f"BentoML and LitServe, {items} items, requests/s"
    )


def note_on_torch(ours: float, best: str, floor: float) -> str:
    return (
        f"{ours:,.0f}/s; fastest: {best}, which {LEAVES_OUT}; an app that would only parse, run "
        f"the model and answer: {floor:.2f} x"
    )


def against_onnx(items: int) -> str:
    return (
        f"The app under uvicorn, one worker, against {ONNX_FASTAPI} with the same ONNX file and "
        f"features, {items} items, requests/s"
    )


def note_on_onnx(theirs: float) -> str:
    return (
        f"{theirs:,.0f}/s there; it answers ids, scores and ranks, {LEAVES_OUT}, and has neither "
        "deadline nor fallback"
    )


def _ratio(rates: Rates, above: str, below: str, items: int) -> stats.Estimate:
    return stats.ratio(*([[rate] for rate in rates[name][items]] for name in (above, below)))


async def _contest(
    plan: Plan, contestants: list[Contestant], python: str
) -> tuple[Loads, list[str]]:
    """A server that doesn't start is left out, with a word."""
    failed = []
    ports: dict[Contestant, int] = {}
    async with AsyncExitStack() as stack:
        for contestant in contestants:
            plan.say(f"servers: starting {contestant.name}")
            try:
                ports[contestant] = await stack.enter_async_context(
                    _running(plan, contestant, python)
                )
            except OperationError as error:
                if contestant.name in {OURS, FLOOR}:
                    raise
                failed.append(f"skipped: {contestant.name} didn't start: {error}")
        bodies = {items: _bodies(plan, items) for items in BARS}
        loads = await asyncio.to_thread(_drive_by_turns, plan, ports, bodies)
    return loads, failed


def _drive_by_turns(
    plan: Plan, ports: Mapping[Contestant, int], bodies: Mapping[int, tuple[Path, Path]]
) -> Loads:
    loads: Loads = {each.name: {items: [] for items in BARS} for each in ports}
    for number in range(plan.effort.server_rounds + 1):
        for items, (ids, matrices) in bodies.items():
            for contestant, port in ports.items():
                seconds = plan.effort.server_s if number else WARM_UP_S
                plan.say(f"servers: round {number}, {items} items, {contestant.name}")
                lines = matrices if contestant.takes_matrix else ids
                load = generator.drive(port, contestant.path, lines, seconds)
                if number:
                    loads[contestant.name][items].append(load)
    return loads


@asynccontextmanager
async def _running(plan: Plan, contestant: Contestant, python: str) -> AsyncIterator[int]:
    port = free_port()
    folder = plan.scratch / contestant.name.replace(" ", "")
    folder.mkdir()
    environ = plan.development.function(plan.variables).configuration(folder)
    environ |= {
        "PATH": f"{Path(python).parent}{os.pathsep}{os.defpath}",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # read when it is imported
        "BENTOML_HOME": str(folder),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": os.pathsep.join(map(str, (FUNCTION, *RIVALS_PATH))),
    }
    process = await Process.start(
        contestant.name,
        contestant.command(python, str(port)),
        folder / "server.log",
        environ,
        cwd=_unnamed(plan.bundle, folder) if contestant.takes_matrix else folder,
    )
    try:
        await process.until_listening(port, START_TIMEOUT_S)
        await _until_it_ranks(plan, contestant, process, port)
        yield port
    finally:
        await process.stop()


async def _until_it_ranks(plan: Plan, contestant: Contestant, process: Process, port: int) -> None:
    """Some listen before their model is there. Raises StartError."""
    ids, matrices = _bodies(plan, min(BARS))
    body = (matrices if contestant.takes_matrix else ids).read_bytes().splitlines()[0]
    url = f"http://{LOCALHOST}:{port}{contestant.path}"
    answer = ""
    try:
        async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as client:
            while process.is_running:
                headers = {"content-type": "application/json"}
                async with client.post(url, data=body, headers=headers) as response:
                    answer = await response.text()
                    if response.ok:
                        return
                await asyncio.sleep(0.1)
    except (TimeoutError, aiohttp.ClientError) as error:
        answer = answer or repr(error)
    raise StartError(f"it answers {answer[:200]!r}; {tail(process.log)}")


def _bodies(plan: Plan, items: int) -> tuple[Path, Path]:
    """The same requests twice: as ids, and as the matrices that MLflow's server takes instead."""
    ids = plan.scratch / f"ids-{items}.jsonl"
    matrices = plan.scratch / f"matrices-{items}.jsonl"
    if not matrices.exists():
        asked = traffic.requests(plan.bundle, items, BODIES)
        traffic.write_lines(ids, asked)
        inputs = traffic.model_inputs(plan.bundle, asked)
        traffic.write_lines(
            matrices, [{"inputs": matrix.tolist()} for each in inputs for matrix in each.values()]
        )
    return ids, matrices


def _unnamed(bundle: Path, folder: Path) -> Path:
    """A copy of the model whose one input has no name: MLflow's server can't feed a torch model by
    name, which its own signature asks for."""
    import yaml

    copy = Path(shutil.copytree(bundle, folder / "model"))
    model = yaml.safe_load((copy / "MLmodel").read_text())
    inputs = json.loads(model["signature"]["inputs"])
    for each in inputs:
        del each["name"]
    model["signature"]["inputs"] = json.dumps(inputs)
    (copy / "MLmodel").write_text(yaml.safe_dump(model))
    return copy


def _by_size(
    loads: Loads, number: Callable[[generator.Load], float]
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {
            str(items): {
                "value": (found := stats.estimate([number(load) for load in rounds])).value,
                "low": found.low,
                "high": found.high,
            }
            for items, rounds in sizes.items()
        }
        for name, sizes in loads.items()
    }


def _has(python: str, package: str) -> bool:
    if python == sys.executable:
        return importlib.util.find_spec(package) is not None
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0
