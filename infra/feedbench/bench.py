"""One benchmark run: what is measured and how much, and the fresh processes that probes run in."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from feedbench import traffic
from feedops.errors import BuildError, OperationError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.local.processes import LINES_QUOTED
from feedops.stack.build import BUILD, find_python, runtime_packages
from feedops.workspace import FUNCTION, PROJECT

PROBES = Path(__file__).with_name("probes")
INFRA = PROJECT / "infra"
COMPETITORS_PATH = (INFRA, PROJECT / "layers" / "model")
EVENTS = 64
INIT_TIMEOUT_S = 60  # the machine may be busy
TIMEOUT_S = 900

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measure gets. It yields rows, and adds to `details` and `notes`.

    `target` is what is deployed, `development` the checkout: torch is only there.
    """

    target: Function
    development: Function
    bundle: Path
    effort: SimpleNamespace  # one of the plan's
    scratch: Path
    say: Callable[[str], None]
    details: dict[str, Any] = field(default_factory=dict)  # plain data, for plots and tables
    notes: list[str] = field(default_factory=list)

    @property
    def target_name(self) -> str:
        return "development environment" if self.target == self.development else "built artifact"

    def events(self, items: int, count: int = EVENTS) -> str:
        """A file of requests with that many items."""
        bodies = traffic.requests(self.bundle, items, count)
        return str(traffic.write_events(self.scratch / f"events-{items}.json", bodies))

    def environ(self, function: Function, *paths: Path, **variables: str) -> dict[str, str]:
        """The function's own variables, nothing of the shell's. `paths` are imported from after
        the function and its layers."""
        temporary = self.scratch / "tmp"
        temporary.mkdir(exist_ok=True)
        variables = {**function.variables, "ORT_DISABLE_TELEMETRY": "1", **variables}
        environ = replace(function, variables=variables).lambda_environ(temporary)
        return environ | {"PYTHONPATH": os.pathsep.join([environ["PYTHONPATH"], *map(str, paths)])}

    def probe(self, name: str, function: Function | None = None, **options: Any) -> Any:  # noqa: ANN401 JSON
        """What the function `probes.NAME` returns. What the handler prints goes into a file."""
        result, function = self.scratch / "result.json", function or self.target
        self.run(probe_command(function, name, result, **options), self.environ(function, INFRA))
        return json.loads(result.read_bytes())

    def time_to_finish(self, line: list[str], environ: dict[str, str], result: Path) -> float:
        """Milliseconds from the spawn to the moment that the probe noted; its exit is not in it."""
        start_ns = time.monotonic_ns()
        self.run(line, environ)
        return (int(result.read_text()) - start_ns) / 1e6

    def run(self, line: list[str], environ: dict[str, str]) -> None:
        """Raises OperationError with the end of its standard error."""
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "timeout": TIMEOUT_S,
            "env": environ,
        }
        with (self.scratch / "output.log").open("wb") as output:
            done = subprocess.run(
                line, stdout=output, stderr=subprocess.PIPE, check=False, **options
            )
        if done.returncode:
            last = done.stderr.decode(errors="replace").splitlines()[-LINES_QUOTED:]
            raise OperationError("\n".join([f"a probe failed: {' '.join(line[:6])}", *last]))

    @asynccontextmanager
    async def environment(self, name: str) -> AsyncIterator[ExecutionEnvironment]:
        """The target in the emulator, with the runtime client where its Python has none."""
        function, log = self.target, self.scratch / f"{name}.log"
        if function.python != Path(sys.executable):
            client = runtime_packages(function.python)
            function = replace(function, layers=(*function.layers, client))
        log.unlink(missing_ok=True)
        environment = await ExecutionEnvironment.start(
            function, log=log, temporary=self.scratch / name
        )
        try:
            yield environment
        finally:
            await environment.stop()


def checkout(bundle: Path) -> Function:
    return Function(FUNCTION, {"MODEL_URI": str(bundle)}, timeout_s=INIT_TIMEOUT_S)


def built_artifact(bundle: Path, build: Path = BUILD) -> Function | None:
    """None where nothing was built, or where the Python that it was built for is missing: it holds
    compiled extensions."""
    layer = build / "RuntimeLayer" / "python"
    try:
        python = find_python(os.environ) if layer.is_dir() else None
    except BuildError:
        python = None
    function = replace(checkout(bundle), task_root=build / "Function", layers=(layer,))
    return replace(function, python=python) if python else None


def is_current(built: Path, source: Path = FUNCTION) -> bool:
    """Whether an artifact was built from the code as it is now."""
    built_files, files = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.py")}
        for root in (built, source)
    )
    return built_files == files


def command(function: Function, *arguments: str | Path) -> list[str]:
    """Unbuffered, as the runtime client is; nothing is imported from beside the script."""
    return [str(function.python), "-u", "-P", *map(str, arguments)]


def probe_command(
    function: Function, name: str, result: Path | str = os.devnull, **options: object
) -> list[str]:
    return command(function, "-m", "feedbench.probes", name, result, json.dumps(options))


def by_turns(samplers: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """A sample of each in every round, so that the machine's drift falls on all of them. A first
    round, which warms them up, is dropped."""
    samples: dict[K, list[T]] = {name: [] for name in samplers}
    for number in range(rounds + 1):
        for name, sample in samplers.items():
            value = sample()
            if number:
                samples[name].append(value)
    return samples
