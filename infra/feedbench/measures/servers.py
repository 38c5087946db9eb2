"""The same app on a plain web server, compared with other servers of the same model: requests/s.

All of them run at once, one worker each, and are driven by turns; who isn't driven is idle.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml

from feedbench import generator, machine, stats, traffic
from feedbench.bench import COMPETITORS_PATH, INFRA, Bench, by_turns
from feedbench.competitors.candidates import Candidates
from feedbench.results import FLOOR, OURS, PLAN, Row, row
from feedbench.traffic import SIZES
from feedops.errors import OperationError, StartError
from feedops.local.processes import LOCALHOST, Process, free_port, tail
from feedops.workspace import FUNCTION, PROJECT

COMPETITORS = PROJECT / ".venv-bench"
BODIES = 128
ONNX_FASTAPI = "ONNX Runtime + FastAPI"  # rows of its own: it is what this project builds on
LEAVES_OUT = "writes no decision record, log line or metric (ours: all three)"
START_TIMEOUT_S = 120.0
POLL_S = 0.1
UVICORN = "--no-access-log --log-level warning --host {host} --port {port}"
PACKAGES = ("bentoml", "fastapi", "litserve", "mlflow", "torch", "uvicorn", "uvloop")
NUMBERS = ("requests_per_s", "p50_ms", "p99_ms")


class Server(NamedTuple):
    name: str
    package: str
    command: str
    path: str = "/predict"
    takes_matrix: bool = False


SERVERS = [Server(name, **options) for name, options in PLAN["servers"].items()]
Loads = Mapping[tuple[int, str], Sequence[dict[str, float]]]  # by items and server, one a round


def measure(bench: Bench) -> Iterator[Row]:
    python = COMPETITORS / "bin" / "python"
    python = python if python.exists() else Path(sys.executable)
    versions = machine.versions(python, *PACKAGES, *(server.package for server in SERVERS))
    loads = asyncio.run(_contest(bench, list(_present(bench, versions)), python))
    rates = {key: [load["requests_per_s"] for load in rounds] for key, rounds in loads.items()}
    yield from rows_of(rates)
    bench.details["servers"] = {
        "generator": generator.name(),
        "connections": generator.CONNECTIONS,
        "versions": {name: versions[name] for name in PACKAGES if name in versions},
        **{number: _by_server(loads, number) for number in NUMBERS},
    }


def _present(bench: Bench, versions: Mapping[str, str]) -> Iterator[Server]:
    inputs = len(traffic.spec_of(bench.bundle).inputs)
    for server in SERVERS:
        if server.package not in versions:
            where = f"{COMPETITORS.name} would hold (`make bench-rivals`)"
            bench.notes.append(f"skipped: {server.name}, which {where}")
        elif server.takes_matrix and inputs > 1:
            bench.notes.append(
                f"skipped: {server.name}, which takes one matrix, and the model reads {inputs}"
            )
        else:
            yield server


def rows_of(rates: Mapping[tuple[int, str], Sequence[float]]) -> Iterator[Row]:
    """Of requests/s by items and server, one a round."""
    names = {name for _, name in rates}
    for items in SIZES:
        by_name = {name: rates[items, name] for name in sorted(names)}
        torch = names - {OURS, FLOOR, ONNX_FASTAPI}
        best = max(torch, key=lambda name: stats.estimate(by_name[name]).value)
        floor = stats.ratio(by_name[FLOOR], by_name[best]).value
        yield row(
            f"server, {items} items",
            stats.ratio(by_name[OURS], by_name[best]),
            f"{stats.estimate(by_name[OURS]).value:,.0f}/s; fastest: {best}, which {LEAVES_OUT}; "
            f"an app that would only parse, run the model and answer: {floor:.2f} x",
        )
    for items in SIZES if ONNX_FASTAPI in names else ():
        ours, theirs = rates[items, OURS], rates[items, ONNX_FASTAPI]
        yield row(
            f"server on ONNX, {items} items",
            stats.ratio(ours, theirs),
            f"{stats.estimate(theirs).value:,.0f}/s there; it answers ids, scores and ranks, "
            f"{LEAVES_OUT}, and has neither deadline nor fallback",
        )


async def _contest(bench: Bench, servers: list[Server], python: Path) -> Loads:
    """A server that doesn't start is skipped with a note."""
    bodies = {items: _bodies(bench, items) for items in SIZES}
    ports: dict[Server, int] = {}
    async with AsyncExitStack() as stack:
        for server in servers:
            bench.say(f"servers: starting {server.name}")
            running = _running(bench, server, python, bodies[SIZES[0]])
            try:
                ports[server] = await stack.enter_async_context(running)
            except OperationError as error:
                if server.name in {OURS, FLOOR}:
                    raise
                bench.notes.append(f"skipped: {server.name} didn't start: {error}")
        samplers = {
            (items, server.name): partial(_drive, bench, server, port, lines[server.takes_matrix])
            for items, lines in bodies.items()
            for server, port in ports.items()
        }
        return await asyncio.to_thread(by_turns, samplers, bench.effort.server_rounds)


def _drive(bench: Bench, server: Server, port: int, lines: Path) -> dict[str, float]:
    bench.say(f"servers: {lines.stem}, {server.name}")
    load = generator.drive(port, lines, bench.effort.server_s, path=server.path)
    if load["errors"]:
        raise OperationError(f"{load['errors']} of {load['requests']} requests failed")
    return {**load, "requests_per_s": load["requests"] / load["seconds"]}


@asynccontextmanager
async def _running(
    bench: Bench, server: Server, python: Path, bodies: tuple[Path, Path]
) -> AsyncIterator[int]:
    port, directory = free_port(), bench.scratch / server.name.replace(" ", "")
    directory.mkdir()
    environ = bench.development.function(bench.variables).configuration(directory) | {
        "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
        "HOME": str(directory),
        "OMP_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # read when it is imported
        "BENTOML_HOME": str(directory),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": os.pathsep.join(map(str, (FUNCTION, *COMPETITORS_PATH))),
    }
    where = {"uvicorn": UVICORN, "host": LOCALHOST, "port": port, "infra": INFRA}
    command = server.command.replace("{uvicorn}", UVICORN).format(**where).split()
    cwd = _unnamed(bench.bundle, directory) if server.takes_matrix else directory
    log = directory / "server.log"
    process = await Process.start(server.name, [python, "-m", *command], log, environ, cwd=cwd)
    try:
        body = bodies[server.takes_matrix].read_bytes().splitlines()[0]
        await _until_it_ranks(process, f"http://{LOCALHOST}:{port}{server.path}", body)
        yield port
    finally:
        await process.stop()


async def _until_it_ranks(process: Process, url: str, body: bytes) -> None:
    """Some listen before their model is there. Raises StartError."""
    answer = ""
    try:
        async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as client:
            while process.is_running:
                try:
                    async with client.post(url, data=body, headers=traffic.JSON) as response:
                        answer = await response.text()
                        if response.ok:
                            return
                except aiohttp.ClientError as error:
                    answer = repr(error)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        pass
    raise StartError(f"it answers {answer[:200]!r}; {tail(process.log)}")


def _bodies(bench: Bench, items: int) -> tuple[Path, Path]:
    """The same requests twice: as ids, and as the matrices that MLflow's server takes instead."""
    requests = traffic.requests(bench.bundle, items, BODIES)
    inputs = [Candidates(bench.bundle).inputs(**each, now_s=traffic.MOMENT_S) for each in requests]
    matrices = [{"inputs": matrix.tolist()} for each in inputs for matrix in each.values()]
    return (
        traffic.write_lines(bench.scratch / f"ids-{items}.jsonl", requests),
        traffic.write_lines(bench.scratch / f"matrices-{items}.jsonl", matrices),
    )


def _unnamed(bundle: Path, directory: Path) -> Path:
    """A copy of the model whose one input has no name: MLflow's server can't feed a torch model by
    name, which its own signature asks for."""
    copy = Path(shutil.copytree(bundle, directory / "model"))
    model = yaml.safe_load((copy / "MLmodel").read_text())
    inputs = json.loads(model["signature"]["inputs"])
    for each in inputs:
        del each["name"]
    model["signature"]["inputs"] = json.dumps(inputs)
    (copy / "MLmodel").write_text(yaml.safe_dump(model))
    return copy


def _by_server(loads: Loads, number: str) -> dict[str, dict[str, Any]]:
    by_server: dict[str, dict[str, Any]] = {}
    for (items, name), rounds in loads.items():
        value = stats.estimate([load[number] for load in rounds])
        by_server.setdefault(name, {})[str(items)] = asdict(value)
    return by_server
