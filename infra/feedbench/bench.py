"""One benchmark run: what is measured and how much, and the fresh processes that probes run in."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from feedbench import traffic
from feedops.errors import OperationError
from feedops.local.emulator import Function
from feedops.local.processes import LINES_QUOTED
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
    say: Callable[[str], None]
    details: dict[str, Any] = field(default_factory=dict)  # plain data, for plots and tables
    notes: list[str] = field(default_factory=list)

    @property
    def target_name(self) -> str:
        return "development environment" if self.target == self.development else "built artifact"

    @property
    def blocks(self) -> dict[str, Any]:
        """How much a probe measures by turns."""
        return {"rounds": self.effort.warm_rounds, "calls": self.effort.warm_calls}

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

    def probe(self, name: str, function: Function | None = None, **options: Any) -> Any:  # noqa: ANN401 JSON
        """What a function of `probes.warm` returns. What the handler prints goes into a file."""
        result, function = self.scratch / "result.json", function or self.target
        arguments = ("-m", "feedbench.probes.warm", name, result, json.dumps(options))
        self.run(command(function, *arguments), self.environ(function, INFRA))
        return json.loads(result.read_bytes())

    def run(self, line: list[str], environ: dict[str, str]) -> str:
        """Its standard error. Raises OperationError with the end of that."""
        files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with (self.scratch / "output.log").open("wb") as output:
            done = subprocess.run(
                line, env=environ, stdout=output, timeout=TIMEOUT_S, check=False, **files
            )
        printed: str = done.stderr.decode(errors="replace")
        if done.returncode:
            last = printed.splitlines()[-LINES_QUOTED:]
            raise OperationError("\n".join([f"a probe failed: {' '.join(line[:6])}", *last]))
        return printed


def command(function: Function, *arguments: str | Path) -> list[str]:
    """Unbuffered, as the runtime client is; nothing is imported from beside the script."""
    return [str(function.python), "-u", "-P", *map(str, arguments)]
