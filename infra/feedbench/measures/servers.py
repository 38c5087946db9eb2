"""The same app on a plain web server, compared with other servers of the same model: requests/s.

All of them run at once, one worker each, and are driven by turns; who isn't driven is idle.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from feedbench import generator, machine, stats, traffic
from feedbench.bench import COMPETITORS_PATH, INFRA, Bench, by_turns
from feedbench.competitors.candidates import Candidates
from feedbench.results import FLOOR, OURS, PLAN, Row, row
from feedbench.server import running
from feedbench.traffic import SIZES
from feedops.errors import OperationError
from feedops.local.processes import LOCALHOST, free_port
from feedops.workspace import FUNCTION, PROJECT

COMPETITORS = PROJECT / ".venv-bench"
BODIES = 128
ONNX_FASTAPI = "ONNX Runtime + FastAPI"  # rows of its own: it is what this project builds on
LEAVES_OUT = "writes no decision record, log line or metric (ours: all three)"
UVICORN = "--no-access-log --log-level warning --host {host} --port {port}"
NUMBERS = ("requests_per_s", "p50_ms", "p99_ms")

Rates = Mapping[tuple[int, str], Sequence[float]]  # by items and server, one a round


class Server(NamedTuple):
    name: str
    package: str
    command: str
    path: str = "/predict"
    takes_matrix: bool = False


def measure(bench: Bench) -> Iterator[Row]:
    python = COMPETITORS / "bin" / "python"
    python = python if python.exists() else Path(sys.executable)
    servers = [Server(name, **options) for name, options in PLAN["servers"].items()]
    versions = machine.versions(python, *PLAN["server_packages"], *(s.package for s in servers))
    bodies = {items: _bodies(bench, items) for items in SIZES}
    with ExitStack() as stack:
        urls: dict[Server, str] = {}
        for server in servers:
            try:
                _check(bench, server, versions)
                server_context = _running(bench, server, python, bodies[SIZES[0]])
                urls[server] = stack.enter_context(server_context)
            except OperationError as error:
                if server.name in {OURS, FLOOR}:
                    raise
                bench.notes.append(f"skipped: {server.name}{error}")
        loads = by_turns(
            {
                (items, server.name): partial(_drive, bench, url, lines[server.takes_matrix])
                for items, lines in bodies.items()
                for server, url in urls.items()
            },
            bench.effort.server_rounds,
        )
    numbers = {n: {key: [load[n] for load in loads[key]] for key in loads} for n in NUMBERS}
    bench.details["servers"] = {
        "generator": generator.name(),
        "connections": generator.CONNECTIONS,
        "versions": {name: versions[name] for name in PLAN["server_packages"] if name in versions},
        **{number: _by_server(rounds) for number, rounds in numbers.items()},
    }
    yield from rows_of(numbers["requests_per_s"])


def rows_of(rates: Rates) -> Iterator[Row]:
    """Of requests/s."""
    names = list(dict.fromkeys(name for _, name in rates))
    torch = [name for name in names if name not in {OURS, FLOOR, ONNX_FASTAPI}]
    for items in SIZES:
        rate = {name: stats.estimate(rates[items, name]).value for name in names}
        best = max(torch, key=lambda name: rate[name])
        floor = stats.ratio(rates[items, FLOOR], rates[items, best]).value
        yield row(
            f"server, {items} items",
            stats.ratio(rates[items, OURS], rates[items, best]),
            f"{rate[OURS]:,.0f}/s; fastest: {best}, which {LEAVES_OUT}; an app that would only "
            f"parse, run the model and answer: {floor:.2f} x",
        )
    for items in SIZES if ONNX_FASTAPI in names else ():
        yield row(
            f"server on ONNX, {items} items",
            stats.ratio(rates[items, OURS], rates[items, ONNX_FASTAPI]),
            f"{stats.estimate(rates[items, ONNX_FASTAPI]).value:,.0f}/s there; it answers ids, "
            f"scores and ranks, {LEAVES_OUT}, and has neither deadline nor fallback",
        )


def _check(bench: Bench, server: Server, versions: Mapping[str, str]) -> None:
    """Raises OperationError where the server can't serve this model here."""
    inputs = len(traffic.spec_of(bench.bundle).inputs)
    if server.package not in versions:
        where = f"{COMPETITORS.name} would hold (`make bench-rivals`)"
        raise OperationError(f", which {where}")
    if server.takes_matrix and inputs > 1:
        raise OperationError(f", which takes one matrix, and the model reads {inputs}")
    bench.say(f"servers: starting {server.name}")


def _drive(bench: Bench, url: str, bodies: Path) -> dict[str, float]:
    load = generator.drive(url, bodies, bench.effort.server_s)
    if load["errors"]:
        raise OperationError(f"{load['errors']} of {load['requests']} requests to {url} failed")
    return {**load, "requests_per_s": load["requests"] / load["seconds"]}


@contextmanager
def _running(
    bench: Bench, server: Server, python: Path, bodies: tuple[Path, Path]
) -> Iterator[str]:
    port, directory = free_port(), bench.scratch / server.name.replace(" ", "")
    directory.mkdir()
    environ = (
        bench.development.configuration(directory)
        | PLAN["server_environment"]
        | {
            "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
            "HOME": str(directory),
            "BENTOML_HOME": str(directory),
            "PYTHONPATH": os.pathsep.join(map(str, (FUNCTION, *COMPETITORS_PATH))),
        }
    )
    command = server.command.replace("{uvicorn}", UVICORN)
    arguments = command.format(host=LOCALHOST, port=port, infra=INFRA).split()
    cwd = _unnamed(bench.bundle, directory) if server.takes_matrix else directory
    url, body = f"http://{LOCALHOST}:{port}{server.path}", bodies[server.takes_matrix].read_bytes()
    first = body.splitlines()[0]
    with running(
        [python, "-m", *arguments], directory / "server.log", environ, url, body=first, cwd=cwd
    ):
        yield url


def _bodies(bench: Bench, items: int) -> tuple[Path, Path]:
    """The same requests twice: as ids, and as the matrices that MLflow's server takes instead."""
    requests, candidates = traffic.requests(bench.bundle, items, BODIES), Candidates(bench.bundle)
    inputs = [candidates.inputs(**request, now_s=traffic.MOMENT_S) for request in requests]
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


def _by_server(rates: Rates) -> dict[str, dict[str, Any]]:
    by_server: dict[str, dict[str, Any]] = {}
    for (items, name), rounds in rates.items():
        by_server.setdefault(name, {})[str(items)] = asdict(stats.estimate(rounds))
    return by_server
