"""One benchmark run: what is measured and how much, and the fresh processes that probes run in."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from feedbench import machine, traffic
from feedops.errors import OperationError
from feedops.local.artifact import in_emulator
from feedops.local.emulator import Function
from feedops.local.emulator_log import reports
from feedops.workspace import PROJECT

INFRA = PROJECT / "infra"
COMPETITORS_PATH = (INFRA, PROJECT / "layers" / "model")
EVENTS = 64
TIMEOUT_S = 900


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
    details: dict[str, Any] = field(default_factory=dict)  # plain data, for plots and tables
    notes: list[str] = field(default_factory=list)

    @property
    def result(self) -> Path:
        """Where a probe writes to."""
        return self.scratch / "result.json"

    @property
    def target_name(self) -> str:
        return "development environment" if self.target == self.development else "built artifact"

    def events(self, items: int, count: int = EVENTS) -> str:
        """A file of requests with that many items."""
        bodies = traffic.requests(self.bundle, items, count)
        return traffic.write_events(self.scratch / f"events-{items}.json", bodies)

    def environ(self, function: Function, *paths: Path) -> dict[str, str]:
        """The function's own variables, nothing of the shell's. `paths` are imported from after
        the function and its layers."""
        temporary = self.scratch / "tmp"
        temporary.mkdir(exist_ok=True)
        environ = {"ORT_DISABLE_TELEMETRY": "1", **function.lambda_environ(temporary)}
        return environ | {"PYTHONPATH": os.pathsep.join([environ["PYTHONPATH"], *map(str, paths)])}

    async def emulate(
        self, function: Function, events: Iterable[Mapping[str, Any]]
    ) -> tuple[float, float]:
        """Milliseconds of an environment's init, and megabytes at its peak after these events.
        Raises OperationError where one isn't answered with 200."""
        async with in_emulator(function, self.scratch) as environment:
            for event in events:
                response = json.loads(await environment.invoke(json.dumps(event).encode()))
                if response["statusCode"] != HTTPStatus.OK:
                    raise OperationError(f"no ranking: {response}")
            peak_mb = environment.peak_memory_mb()
        first, *_ = reports(environment.log.read_text(errors="replace").splitlines())
        return float(first.init_ms or math.nan), float(peak_mb)

    def probe(self, name: str, function: Function | None = None, **options: Any) -> Any:  # noqa: ANN401 JSON
        """What a function of `probes.warm` returns. What the handler prints goes into a file."""
        function = function or self.target
        line = ("-m", "feedbench.probes.warm", self.result, name, json.dumps(options))
        self.run(function, line, INFRA)
        return json.loads(self.result.read_bytes())

    def run(self, function: Function, arguments: Iterable[str | Path], *paths: Path) -> str:
        """Runs the function's Python, unbuffered, as the runtime client is; nothing is imported
        from beside the script. Returns its standard error, or raises OperationError with the end
        of that."""
        line, environ = [function.python, "-u", "-P", *arguments], self.environ(function, *paths)
        with (self.scratch / "output.log").open("wb") as output:
            done = machine.run(line, env=environ, timeout=TIMEOUT_S, stdout=output)
        return done.stderr.decode(errors="replace")
