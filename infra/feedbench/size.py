"""Unzipped megabytes by dependency: of the built artifact, else of what would be installed."""

import importlib.metadata
import re
from pathlib import Path

from feedbench.plan import Plan
from feedbench.results import Measurement, row
from feedops.errors import BuildError
from feedops.stack import budget
from feedops.stack.build import BUILD
from feedops.workspace import FUNCTION, PROJECT

RUNTIME = PROJECT / "layers" / "runtime" / "requirements.txt"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def measure(plan: Plan) -> Measurement:
    try:
        sizes, how = built_sizes(BUILD), "the built artifact"
    except BuildError:
        sizes, how = installed_sizes(plan.bundle), "as installed in the development environment"
    size = row(
        "size",
        "Function and layers, unzipped",
        sum(sizes.values()) / 1e6,
        bar=budget.BAR_BYTES / 1e6,
        unit="MB",
        note=f"{how}; Lambda's limit is {budget.LIMIT_BYTES / 1e6:.0f} MB",
    )
    ordered = dict(sorted(sizes.items(), key=lambda each: -each[1]))
    return Measurement((size,), {"size_bytes": ordered})


def built_sizes(build: Path) -> dict[str, int]:
    """Bytes by dependency, function and model. Raises BuildError where there is no build."""
    found = budget.measure(build)
    layer = budget.PARTS["RuntimeLayer"]
    return dict(found.dependencies) | {
        part: size for part, size in found.parts.items() if part != layer
    }


def installed_sizes(bundle: Path) -> dict[str, int]:
    """Bytes by distribution of the runtime layer, bytecode included; and of ours."""
    sizes = {name: _installed(name) for name in _PINNED.findall(RUNTIME.read_text())}
    return sizes | {
        budget.PARTS["Function"]: _folder(FUNCTION),
        budget.PARTS["ModelLayer"]: _folder(bundle),
    }


def _installed(name: str) -> int:
    files = importlib.metadata.distribution(name).files or []
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file())


def _folder(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
