"""The unzipped size of a build, by part and by dependency, compared with Lambda's limit."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from feedops.errors import BuildError, OverBudgetError
from feedops.stack.build import BUILD

LIMIT_BYTES = 262_144_000  # Lambda: function and layers, unzipped
BAR_BYTES = 200_000_000  # the project's own limit, with room to grow
LEFT_BYTES = 144_000_000  # for the model layer, beside the function and its runtime layer
TMP_BYTES = 512_000_000  # of a function's /tmp, unless EphemeralStorage says more
LARGEST_TMP_BYTES = 10_240_000_000
STORAGE_STEP_MB = 256
PARTS = {"Function": "function", "RuntimeLayer": "runtime layer", "ModelLayer": "model layer"}
# Import names that differ from the name of their distribution.
DISTRIBUTIONS = {"google": "protobuf", "opentelemetry": "opentelemetry_api"}
SMALL_BYTES = 1_000_000
_VERSIONED = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")


def where_it_fits(size_bytes: int) -> str:
    """Of what a container reads of a bundle."""
    size = f"{size_bytes / 1e6:,.1f} MB on Lambda"
    layer, tmp = f"{LEFT_BYTES / 1e6:.0f} MB", f"{TMP_BYTES / 1e6:.0f} MB"
    if size_bytes <= LEFT_BYTES:
        return f"{size}: a layer (about {layer} are left) or S3 (/tmp has {tmp})"
    if size_bytes <= TMP_BYTES:
        return f"{size}: S3 alone (/tmp has {tmp}); a layer has about {layer} left"
    if size_bytes > LARGEST_TMP_BYTES:
        return f"{size}: nowhere; /tmp has {LARGEST_TMP_BYTES / 1e6:,.0f} MB at most"
    storage_mb = STORAGE_STEP_MB * math.ceil(size_bytes / 1e6 / STORAGE_STEP_MB)
    return f"{size}: S3, with EphemeralStorage={storage_mb} (/tmp has {tmp}); or a container image"


@dataclass(frozen=True, slots=True)
class Budget:
    """Sizes in bytes; `dependencies` are those in the runtime layer."""

    parts: Mapping[str, int]
    dependencies: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def measure(build: Path = BUILD) -> Budget:
    """Raises BuildError if there is no build."""
    if missing := [part for part in PARTS if not (build / part).is_dir()]:
        raise BuildError(f"no {', '.join(missing)} in {build}\nbuild with: make build")
    return Budget(
        {name: _size(build / part) for part, name in PARTS.items()},
        _by_distribution(build / "RuntimeLayer" / "python"),
    )


def print_budget(budget: Budget, console: Console) -> None:
    """Prints the table. Then raises OverBudgetError if the total is over the bar."""
    table = Table("part", title="Unzipped", title_justify="left")
    for heading in ("MB", "of the limit"):
        table.add_column(heading, justify="right")
    for part, size in budget.parts.items():
        table.add_row(part, *_columns(size))
        if part == PARTS["RuntimeLayer"]:
            for name, package_bytes in _large_ones(budget.dependencies).items():
                table.add_row(f"  {name}", *_columns(package_bytes), style="dim")
    table.add_section()
    table.add_row("total", *_columns(budget.total), style="bold")
    table.add_row("bar", *_columns(BAR_BYTES))
    table.add_row("Lambda's limit", *_columns(LIMIT_BYTES))
    console.print(table)
    if budget.total > BAR_BYTES:
        over = (budget.total - BAR_BYTES) / 1e6
        raise OverBudgetError(f"the build is {over:.1f} MB over the bar")


def _columns(size: int) -> tuple[str, str]:
    return f"{size / 1e6:.1f}", f"{100 * size / LIMIT_BYTES:.1f} %"


def _large_ones(sizes: Mapping[str, int]) -> dict[str, int]:
    """The largest first, the small ones as one sum."""
    large = {name: size for name, size in sizes.items() if size >= SMALL_BYTES}
    ordered = dict(sorted(large.items(), key=lambda each: -each[1]))
    rest = len(sizes) - len(large)
    return ordered | ({f"{rest} smaller ones": sum(sizes.values()) - sum(large.values())})


def _by_distribution(site: Path) -> dict[str, int]:
    """Sizes by `name version`, each with its .libs and its .dist-info."""
    versions = {
        match["name"]: match["version"]
        for path in site.glob("*.dist-info")
        if (match := _VERSIONED.fullmatch(path.name))
    }
    sizes: Counter[str] = Counter()
    for path in site.iterdir():
        match = _VERSIONED.fullmatch(path.name)
        stem = match["name"] if match else path.name.removesuffix(".py").removesuffix(".libs")
        name = DISTRIBUTIONS.get(stem, stem)
        sizes[f"{name} {versions.get(name, '')}".strip()] += _size(path)
    return dict(sizes)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(child.stat().st_size for child in path.rglob("*") if child.is_file())
