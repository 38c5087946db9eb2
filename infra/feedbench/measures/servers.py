"""The same app on a plain web server, compared with other servers of the same model: requests/s.

All of them run at once, one worker each, and are driven by turns; who isn't driven is idle. And
the local HTTP front under a steady load.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from feedbench import generator, machine, stats, traffic
from feedbench.bench import COMPETITORS_PATH, INFRA, Bench
from feedbench.competitors.candidates import Candidates
from feedbench.results import FLOOR, OURS, PLAN, Row, row
from feedbench.traffic import SIZES
from feedops.errors import OperationError
from feedops.features.load import bundle_spec
from feedops.local.background import front_server, running
from feedops.local.processes import LOCALHOST, free_port
from feedops.workspace import FUNCTION, PROJECT

COMPETITORS = PROJECT / ".venv-bench"
BODIES = 128
FRONT_ITEMS, FRONT_USERS, FRONT_THINK_MS, FRONT_WARM_UP_S = 50, 100, 1_000, 3.0
ONNX_FASTAPI = "ONNX Runtime + FastAPI"  # rows of its own: it is what this project builds on
LEAVES_OUT = "writes no decision record, log line or metric (ours: all three)"
UVICORN = "--no-access-log --log-level warning --host {host} --port {port}"

Rates = Mapping[tuple[int, str], Sequence[float]]  # by items and server, one a round
Bodies = tuple[Path, Path]  # as ids, as matrices


class Server(NamedTuple):
    name: str
    command: str
    path: str = "/predict"
    takes_matrix: bool = False


def measure(bench: Bench) -> Iterator[Row]:
    python = COMPETITORS / "bin" / "python"
    if not python.exists():
        raise OperationError("the other servers aren't installed: `make bench-competitors`")
    servers = [Server(name, **options) for name, options in PLAN["servers"].items()]
    if len(bundle_spec(bench.bundle).inputs) > 1:
        servers = [server for server in servers if not server.takes_matrix]
        bench.notes.append("skipped: MLflow's server, which takes one matrix")
    bodies, samplers = {items: _bodies(bench, items) for items in SIZES}, {}
    with ExitStack() as stack:
        for server in servers:
            url = stack.enter_context(_running(bench, server, python, bodies[SIZES[0]]))
            for items, files in bodies.items():
                options = url, files[server.takes_matrix], bench.effort.server_s
                samplers[items, server.name] = partial(generator.requests_per_s, *options)
        rates = stats.by_turns(samplers, bench.effort.server_rounds)
    per_s: dict[str, dict[str, Any]] = {}
    for (items, name), samples in rates.items():
        per_s.setdefault(name, {})[str(items)] = asdict(stats.estimate(samples))
    bench.details["servers"] = {
        "connections": generator.CONNECTIONS,
        "versions": machine.versions(PLAN["server_packages"], COMPETITORS),
        "requests_per_s": per_s,
    }
    yield from rows_of(rates)


def rows_of(rates: Rates) -> Iterator[Row]:
    """Of requests/s."""
    names = list(dict.fromkeys(name for _, name in rates))
    torch = [name for name in names if name not in {OURS, FLOOR, ONNX_FASTAPI}]
    for items in SIZES:
        rate = {name: np.median(rates[items, name]) for name in names}
        best = max(torch, key=lambda name: rate[name])
        floor = stats.ratio(rates[items, FLOOR], rates[items, best]).value
        yield row(
            f"server, {items} items",
            stats.ratio(rates[items, OURS], rates[items, best]),
            f"{rate[OURS]:,.0f}/s; fastest: {best}, which {LEAVES_OUT}; an app that would only "
            f"parse, run the model and answer: {floor:.2f} x",
        )
    for items in SIZES:
        yield row(
            f"server on ONNX, {items} items",
            stats.ratio(rates[items, OURS], rates[items, ONNX_FASTAPI]),
            f"{np.median(rates[items, ONNX_FASTAPI]):,.0f}/s there; it answers ids, "
            f"scores and ranks, {LEAVES_OUT}, and has neither deadline nor fallback",
        )


def measure_front(bench: Bench) -> Iterator[Row]:
    """A steady load through the local HTTP front."""
    bodies = traffic.requests(bench.bundle, FRONT_ITEMS, BODIES)
    lines = traffic.write_lines(bench.scratch / "front.jsonl", bodies)
    with front_server(bench.scratch, bench.bundle, environments=2, longest_wait_s=5.0) as address:
        for seconds in (FRONT_WARM_UP_S, bench.effort.front_s):
            users = FRONT_USERS, FRONT_THINK_MS
            load = generator.drive(f"{address}/predict", lines, seconds, *users)
    latency_ms = stats.distribution(load["latencies_ms"]) | {"samples": load["requests"]}
    requests = f"{load['requests']:,} requests in {bench.effort.front_s:g} s"
    note = f"{requests}, of {FRONT_USERS} users, 2 environments"
    yield row("load", latency_ms["p99"], note)
    yield row("load errors", load["errors"])
    bench.details["front"] = {"latency_ms": latency_ms}


@contextmanager
def _running(bench: Bench, server: Server, python: Path, bodies: Bodies) -> Iterator[str]:
    port, directory = free_port(), bench.scratch / server.name.replace(" ", "")
    directory.mkdir()
    environ = bench.development.configuration(directory) | PLAN["server_environment"]
    environ |= {
        "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
        "HOME": str(directory),
        "BENTOML_HOME": str(directory),
        "PYTHONPATH": os.pathsep.join(map(str, (FUNCTION, *COMPETITORS_PATH))),
    }
    command = server.command.replace("{uvicorn}", UVICORN)
    arguments = command.format(host=LOCALHOST, port=port, infra=INFRA).split()
    cwd = _unnamed(bench.bundle, directory) if server.takes_matrix else directory
    url = f"http://{LOCALHOST}:{port}{server.path}"
    first = bodies[server.takes_matrix].read_bytes().splitlines()[0]
    line: list[str | Path] = [python, "-m", *arguments]
    with running(line, directory / "server.log", environ, url, body=first, cwd=cwd):
        yield url


def _bodies(bench: Bench, items: int) -> Bodies:
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
    (tensor,) = json.loads(model["signature"]["inputs"])
    model["signature"]["inputs"] = json.dumps([{k: v for k, v in tensor.items() if k != "name"}])
    (copy / "MLmodel").write_text(yaml.safe_dump(model))
    return copy
