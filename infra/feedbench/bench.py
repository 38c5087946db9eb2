"""One benchmark run: what is measured and how much, and the fresh processes that probes run in."""

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from feedbench import traffic
from feedbench.target import Target
from feedops.errors import OperationError
from feedops.local.emulator import ExecutionEnvironment
from feedops.local.processes import LINES_QUOTED
from feedops.workspace import PROJECT

PROBES = Path(__file__).with_name("probes")
INFRA = PROJECT / "infra"
COMPETITORS_PATH = (INFRA, PROJECT / "layers" / "model")
EVENTS = 64
TIMEOUT_S = 900

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measure gets. It yields rows, and adds to `details` and `notes`.

    `target` is what is deployed, `development` the checkout: torch is only there.
    """

    target: Target
    development: Target
    bundle: Path
    effort: SimpleNamespace  # one of the plan's
    scratch: Path
    say: Callable[[str], None]
    details: dict[str, Any] = field(default_factory=dict)  # plain data, for plots and tables
    notes: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        return {"MODEL_URI": str(self.bundle)}

    def events(self, items: int, count: int = EVENTS) -> str:
        """A file of requests with that many items."""
        bodies = traffic.requests(self.bundle, items, count)
        return str(traffic.write_events(self.scratch / f"events-{items}.json", bodies))

    def environ(
        self, target: Target, *paths: Path, variables: Mapping[str, str] = {}
    ) -> dict[str, str]:
        """The function's own variables, nothing of the shell's. `paths` are imported from after
        the function and its layers."""
        temporary = self.scratch / "tmp"
        temporary.mkdir(exist_ok=True)
        environ = target.function({**self.variables, **variables}).lambda_environ(temporary)
        environ["ORT_DISABLE_TELEMETRY"] = "1"  # some import it before feedrank does
        environ["PYTHONPATH"] = os.pathsep.join(map(str, (environ["PYTHONPATH"], *paths)))
        return environ

    def probe(self, name: str, target: Target | None = None, **options: Any) -> Any:  # noqa: ANN401 JSON
        """What the function `probes.NAME` returns. What the handler prints goes into a file."""
        target = target or self.target
        result = self.scratch / "result.json"
        line = probe_command(target, name, result, **options)
        self.run(line, self.environ(target, INFRA))
        return json.loads(result.read_bytes())

    def time_to_finish(self, line: list[str], environ: dict[str, str], result: Path) -> float:
        """Milliseconds from the spawn to the moment that the probe noted; its exit is not in it."""
        start_ns = time.monotonic_ns()
        self.run(line, environ)
        return (int(result.read_text()) - start_ns) / 1e6

    def run(self, line: list[str], environ: dict[str, str]) -> None:
        """Raises OperationError with the end of its standard error."""
        with (self.scratch / "output.log").open("wb") as output:
            done = subprocess.run(
                line,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                timeout=TIMEOUT_S,
                check=False,
            )
        if done.returncode:
            last = done.stderr.decode(errors="replace").splitlines()[-LINES_QUOTED:]
            raise OperationError("\n".join([f"a probe failed: {' '.join(line[:6])}", *last]))

    @asynccontextmanager
    async def environment(self, name: str) -> AsyncIterator[ExecutionEnvironment]:
        """The target in the emulator."""
        function = self.target.on_emulator.function(self.variables)
        log, temporary = self.scratch / f"{name}.log", self.scratch / name
        log.unlink(missing_ok=True)
        environment = await ExecutionEnvironment.start(function, log=log, temporary=temporary)
        try:
            yield environment
        finally:
            await environment.stop()


def command(target: Target, *arguments: str | Path) -> list[str]:
    """Unbuffered, as the runtime client is; nothing is imported from beside the script."""
    return [str(target.python), "-u", "-P", *map(str, arguments)]


def probe_command(target: Target, name: str, result: Path | str = "", **options: Any) -> list[str]:  # noqa: ANN401 JSON
    return command(
        target, "-m", "feedbench.probes", name, result or os.devnull, json.dumps(options)
    )


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
