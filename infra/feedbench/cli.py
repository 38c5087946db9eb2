"""The `feedrank` command with the benchmark's own two. What is heavy is imported when one runs."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from feedops.cli.main import app
from feedops.cli.options import Bundle
from feedops.errors import OperationError
from feedops.workspace import DATA, PROJECT, scratch_folder

if TYPE_CHECKING:  # it imports NumPy and Pydantic, which `feedrank --help` shouldn't wait for
    from feedbench.results import Results, Row

README = PROJECT / "README.md"
RESULTS = DATA / "bench" / "results.json"
PART = DATA / "bench" / "part" / "results.json"
PACKAGES = (
    *("aws-lambda-powertools", "fastapi", "mangum", "mlflow", "numpy", "onnxruntime"),
    *("pydantic", "starlette", "torch", "uvicorn"),
)

console = Console()


def bench(
    *,
    bundle: Bundle = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rounds: minutes instead of a quarter of an hour.")
    ] = False,
    only: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            default_factory=list,
            show_default=False,
            help="Take this measurement alone; repeatable.",
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Fail where something got worse than the baseline.")
    ] = False,
    readme: Annotated[
        bool, typer.Option("--readme", help="Measure nothing: write the last run's report, README.")
    ] = False,
    set_baseline: Annotated[
        bool, typer.Option("--set-baseline", help="Measure nothing: the last run is the baseline.")
    ] = False,
) -> None:
    """Measure cold start, latency, throughput, load, size, memory: with bars and competitors."""
    from feedbench.measures import MEASURES
    from feedbench.report import comparison, markdown
    from feedbench.results import Results
    from feedops.models.releases import newest_bundle

    if set_baseline:
        Results.read(RESULTS).write(comparison.BASELINE)
    if readme:
        written = markdown.write_readme(Results.read(RESULTS), README)
        console.print(f"{README}, {written}", soft_wrap=True, highlight=False)
    if readme or set_baseline:
        return
    if unknown := set(only) - set(MEASURES):
        raise OperationError(f"no measurement {unknown.pop()!r}; there are: {', '.join(MEASURES)}")
    results = measure(bundle or newest_bundle(), "quick" if quick else "full", only or [*MEASURES])
    path = PART if only else RESULTS  # the README is made of whole runs alone
    results.write(path)
    show(results)
    written = markdown.write(results, path.parent)
    console.print(f"{path}, {written}", soft_wrap=True, highlight=False)
    if check:
        comparison.check(results, Results.read(comparison.BASELINE), console)


def measure(bundle: Path, effort: str, names: list[str]) -> "Results":
    """Raises OperationError, and whatever stops a measurement."""
    from feedbench import generator, machine, target
    from feedbench.bench import Bench
    from feedbench.measures import MEASURES
    from feedbench.results import PLAN, Results
    from feedops.models.releases import manifest_of

    manifest, development = manifest_of(bundle), target.checkout()
    artifact = target.built_artifact()
    notes: list[str] = []
    rows: list[Row] = []
    if artifact and not target.is_current(artifact):
        artifact = None
        notes.append("the built artifact is of other code and was skipped: `make build`")
    deployed, description = artifact or development, machine.description()
    with scratch_folder(DATA / "bench" / "run") as scratch, console.status("") as status:
        bench = Bench(
            target=deployed,
            development=development,
            bundle=bundle.absolute(),
            effort=SimpleNamespace(**PLAN["efforts"][effort]),
            scratch=scratch,
            say=status.update,
            notes=notes,
        )
        for name in MEASURES:
            if name in names:
                status.update(name)
                rows += MEASURES[name](bench)
                console.print(f"[green]measured[/] {name}")
    return Results(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        effort=effort,
        machine=description,
        versions=machine.versions(development.python, *PACKAGES),
        setup={
            "target": deployed.name,
            "python": machine.versions(deployed.python)["python"],
            "bundle": f"{manifest.model_version} ({manifest.network})",
            "load generator": generator.name(),
            "cores": machine.pinning(),
        },
        rows=tuple(rows),
        notes=tuple(bench.notes),
        details=bench.details,
    )


def show(results: "Results") -> None:
    from feedbench.report.markdown import bar, measured

    table = Table(title=f"feedrank bench, {results.effort}, {results.setup['target']}")
    table.add_column("what")
    for heading in ("measured", "bar", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results.rows:
        met = "[green]met[/]" if row.is_met else "[bold red]missed[/]"
        table.add_row(f"{row.what}\n[dim]{row.note}[/]", measured(row), bar(row), met)
    console.print(table)
    for note in results.notes:
        console.print(note, style="yellow", markup=False)


def load(
    *,
    bundle: Bundle = None,
    url: Annotated[
        str, typer.Option(help="The address of a server that runs already; else one is started.")
    ] = "",
    environments: Annotated[
        int, typer.Option(min=1, max=64, help="Lambda environments of the server that is started.")
    ] = 2,
    seconds: Annotated[int, typer.Option(min=5, help="Length of the steady phase.")] = 60,
    web: Annotated[
        int, typer.Option(metavar="PORT", help="Open Locust's web page here; it says what to send.")
    ] = 0,
) -> None:
    """Load the HTTP front with Locust: 100 requests/s, saturation, three times that, recovery."""
    from feedbench.load import drive
    from feedops.models.releases import newest_bundle

    options = drive.LoadOptions(bundle or newest_bundle(), url, environments, seconds, web)
    drive.run(options, console)


app.add_commands("Benchmark", bench, load)


def main() -> None:
    app()
