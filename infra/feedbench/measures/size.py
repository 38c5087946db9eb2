"""Unzipped megabytes by dependency: of the built artifact, else of what would be installed."""

import importlib.metadata
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feedbench.bench import Bench
from feedbench.results import Row, row
from feedops.errors import BuildError
from feedops.stack import budget
from feedops.stack.build import BUILD
from feedops.workspace import FUNCTION, PROJECT

RUNTIME = PROJECT / "layers" / "runtime" / "requirements.txt"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def measure(bench: Bench) -> Iterator[Row]:
    try:
        sizes, source = built_sizes(BUILD), "the built artifact"
    except BuildError:
        sizes, source = installed_sizes(bench.bundle), "as installed in the development environment"
    note = f"{source}; Lambda's limit is {budget.LIMIT_BYTES / 1e6:.0f} MB"
    yield row("size", sum(sizes.values()) / 1e6, note)
    bench.details["size_bytes"] = dict(sorted(sizes.items(), key=lambda each: -each[1]))


def built_sizes(build: Path) -> dict[str, int]:
    """Bytes by dependency, function and model. Raises BuildError where there is no build."""
    measured = budget.measure(build)
    parts = dict(measured.parts)
    del parts[budget.PARTS["RuntimeLayer"]]  # its dependencies are listed
    return {**measured.dependencies, **parts}


def installed_sizes(bundle: Path) -> dict[str, int]:
    """Bytes by distribution of the runtime layer, bytecode included; and of ours."""
    paths: dict[str, Iterable[Any]] = {
        name: [file.locate() for file in importlib.metadata.files(name) or []]
        for name in _PINNED.findall(RUNTIME.read_text())
    }
    paths[budget.PARTS["Function"]] = FUNCTION.rglob("*")
    paths[budget.PARTS["ModelLayer"]] = bundle.rglob("*")
    return {
        name: sum(path.stat().st_size for path in each if path.is_file())
        for name, each in paths.items()
    }
