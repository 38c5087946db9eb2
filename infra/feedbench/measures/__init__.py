"""All measurements: functions that yield rows, and add plain data to the run's details."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from feedbench import bench, machine
from feedbench.measures import aws, cold_start, rich, servers, warm
from feedbench.results import PLAN, Results, Row
from feedmodel.errors import CommandError
from feedops.errors import BuildError, OperationError
from feedops.local.artifact import built_artifact, checkout
from feedops.models.bundles import manifest_of
from feedops.workspace import DATA, scratch_directory

MEASURES: Mapping[str, Callable[[bench.Bench], Iterator[Row]]] = {
    "cold start": cold_start.measure,
    "warm": warm.measure,
    "rich model": rich.measure,
    "servers": servers.measure,
    "engines": warm.measure_engines,
    "load": servers.measure_front,
    "size": cold_start.measure_size,
    "bundle sizes": aws.measure_bundles,
    "stores": aws.measure_stores,
    "parity": warm.measure_parity,
    "memory": warm.measure_memory,
}
LOST = "not measured: "  # how the note on a measurement begins that failed
LOSSES = (CommandError, OSError, subprocess.SubprocessError)


def measure(
    find_bundle: Callable[[], Path], effort: str, only: list[str], console: Console
) -> Results:
    """A measurement that fails leaves a note, and the others go on. Raises OperationError where
    none can begin."""
    if unknown := set(only) - set(MEASURES):
        raise OperationError(f"no measurement {unknown.pop()!r}; there are: {', '.join(MEASURES)}")
    bundle = find_bundle().absolute()
    manifest, rows, notes = manifest_of(bundle), list[Row](), list[str]()
    target = development = checkout(bundle)
    try:
        target = built_artifact(bundle)
    except BuildError as error:
        notes.append(f"measured in the development environment: {error}")
    amounts = SimpleNamespace(**PLAN["efforts"][effort])
    with scratch_directory(DATA / "bench" / "run") as scratch, console.status("") as status:
        run = bench.Bench(target, development, bundle, amounts, scratch, notes=notes)
        for name in (name for name in MEASURES if name in (only or MEASURES)):
            status.update(name)
            try:
                rows += MEASURES[name](run)
                console.print(f"[green]measured[/] {name}")
            except LOSSES as error:
                notes.append(f"{LOST}{name}: {error}")
                console.print(f"[red]failed[/] {name}")
    python = subprocess.check_output([target.python, "-V"], text=True).split()[1]
    bundle_name = f"{manifest.model_version} ({manifest.network})"
    cores = machine.pinning()
    return Results(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        effort=effort,
        machine=machine.description(),
        versions=machine.versions(PLAN["packages"]),
        setup={"target": run.target_name, "python": python, "bundle": bundle_name, "cores": cores},
        rows=tuple(rows),
        notes=tuple(notes),
        details=run.details,
    )
