"""All measurements: functions that yield rows, and add plain data to the run's details."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from feedbench import bench, generator, machine
from feedbench.measures import cold_start, front, servers, size, warm
from feedbench.results import PLAN, Results, Row
from feedops.errors import OperationError
from feedops.models.releases import manifest_of
from feedops.workspace import DATA, scratch_folder

MEASURES: Mapping[str, Callable[[bench.Bench], Iterator[Row]]] = {
    "cold start": cold_start.measure,
    "imports": cold_start.measure_imports,
    "warm": warm.measure,
    "servers": servers.measure,
    "engines": warm.measure_engines,
    "load": front.measure,
    "size": size.measure,
    "parity": warm.measure_parity,
    "memory": warm.measure_memory,
}


def measure(
    find_bundle: Callable[[], Path], effort: str, only: list[str], console: Console
) -> Results:
    """Raises OperationError, and whatever stops a measurement."""
    if unknown := set(only) - set(MEASURES):
        raise OperationError(f"no measurement {unknown.pop()!r}; there are: {', '.join(MEASURES)}")
    bundle = find_bundle().absolute()
    manifest, rows = manifest_of(bundle), list[Row]()
    development, artifact = bench.checkout(bundle), bench.built_artifact(bundle)
    stale = artifact is not None and not bench.is_current(artifact.task_root)
    target = development if stale or artifact is None else artifact
    description, amounts = machine.description(), SimpleNamespace(**PLAN["efforts"][effort])
    with scratch_folder(DATA / "bench" / "run") as scratch, console.status("") as status:
        run = bench.Bench(target, development, bundle, amounts, scratch, status.update)
        if stale:
            run.notes.append("the built artifact is of other code and was skipped: `make build`")
        for name in (name for name in MEASURES if name in (only or MEASURES)):
            status.update(name)
            rows += MEASURES[name](run)
            console.print(f"[green]measured[/] {name}")
    setup = {
        "target": run.target_name,
        "python": machine.versions(target.python)["python"],
        "bundle": f"{manifest.model_version} ({manifest.network})",
        "load generator": generator.name(),
        "cores": machine.pinning(),
    }
    return Results(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        effort=effort,
        machine=description,
        versions=machine.versions(development.python, *PLAN["packages"]),
        setup=setup,
        rows=tuple(rows),
        notes=tuple(run.notes),
        details=run.details,
    )
