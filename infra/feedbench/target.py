"""What is measured: the built artifact on Lambda's Python where it is there, else this checkout."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from feedops.errors import BuildError
from feedops.local.emulator import Function
from feedops.stack.build import BUILD, find_python, runtime_packages
from feedops.workspace import FUNCTION

INIT_TIMEOUT_S = 60  # the machine may be busy


@dataclass(frozen=True, slots=True)
class Target:
    """Code and the Python that runs it."""

    name: str
    task_root: Path
    python: Path
    layers: tuple[Path, ...] = ()

    @property
    def on_emulator(self) -> "Target":
        """With the runtime client, where its Python has none of its own."""
        if self.python == Path(sys.executable):
            return self
        return replace(self, layers=(*self.layers, runtime_packages(self.python)))

    def function(self, variables: dict[str, str]) -> Function:
        return Function(
            self.task_root,
            variables,
            python=self.python,
            layers=self.layers,
            timeout_s=INIT_TIMEOUT_S,
        )


def checkout() -> Target:
    return Target("development environment", FUNCTION, Path(sys.executable))


def built_artifact(build: Path = BUILD) -> Target | None:
    """None where nothing was built, or where the Python that it was built for is missing: it holds
    compiled extensions."""
    layer = build / "RuntimeLayer" / "python"
    if not layer.is_dir():
        return None
    try:
        python = find_python(os.environ)
    except BuildError:
        return None
    return Target("built artifact", build / "Function", python, (layer,))


def is_current(artifact: Target, source: Path = FUNCTION) -> bool:
    """Whether the artifact was built from the code as it is now."""
    return _sources(artifact.task_root) == _sources(source)


def _sources(directory: Path) -> dict[Path, bytes]:
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*.py")}
