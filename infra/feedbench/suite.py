"""All measurements, one after the other."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from feedbench import (
    cold_start,
    engines,
    front_load,
    generator,
    machine,
    memory,
    parity,
    servers,
    size,
    warm,
)
from feedbench.plan import FULL, QUICK, Plan
from feedbench.results import Measurement, Results, Row
from feedbench.target import built_artifact, checkout, is_current, rivals_python
from feedops.models.releases import manifest_of
from feedops.workspace import DATA, scratch_folder

SCRATCH = DATA / "bench" / "run"

MEASUREMENTS: Mapping[str, Callable[[Plan], Measurement]] = {
    "cold start": cold_start.measure,
    "imports": cold_start.measure_imports,
    "warm": warm.measure,
    "servers": servers.measure,
    "engines": engines.measure,
    "load": front_load.measure,
    "size": size.measure,
    "parity": parity.measure,
    "memory": memory.measure,
}


def run(bundle: Path, *, quick: bool, only: list[str], console: Console) -> Results:
    """Measure. Raises OperationError, and whatever stops a measurement."""
    manifest = manifest_of(bundle)
    development = checkout()
    artifact = built_artifact()
    notes: list[str] = []
    if artifact and not is_current(artifact):
        artifact = None
        notes.append("the built artifact is of other code and was left out: `make build`")
    target = artifact or development
    effort = QUICK if quick else FULL
    description = machine.description()
    rows: list[Row] = []
    details: dict[str, Any] = {}
    with scratch_folder(SCRATCH) as scratch, console.status("") as status:
        plan = Plan(
            target, development, rivals_python(), bundle.absolute(), effort, scratch, status.update
        )
        for name, measure in MEASUREMENTS.items():
            if only and name not in only:
                continue
            status.update(name)
            found = measure(plan)
            rows.extend(found.rows)
            notes.extend(found.notes)
            details.update(found.details)
            console.print(f"[green]measured[/] {name}")
    return Results(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        effort=effort.name,
        machine=description,
        versions=machine.versions(),
        setup={
            "target": target.name,
            "python": machine.python_version(target.python),
            "bundle": f"{manifest.model_version} ({manifest.network})",
            "load generator": generator.name(),
            "cores": machine.pinning(),
        },
        rows=tuple(rows),
        notes=tuple(notes),
        details=details,
    )
