"""`feedrank bench` and `feedrank load`. What is heavy is imported when one runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from feedbench.results import Results
from feedops.cli.app import App
from feedops.errors import OperationError
from feedops.workspace import DATA, PROJECT

README = PROJECT / "README.md"
RESULTS = DATA / "bench" / "results.json"
PART = DATA / "bench" / "part" / "results.json"

console = Console()

Bundle = Annotated[
    Path | None, typer.Option(help="A bundle's folder.", show_default="the newest in data/bundles")
]


def register(app: App) -> None:
    app.add_commands("Benchmark", bench, load)


def bench(
    *,
    bundle: Bundle = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rounds: minutes instead of a quarter of an hour.")
    ] = False,
    only: Annotated[
        list[str], typer.Option(metavar="NAME", help="Take this measurement alone; repeatable.")
    ] = [],  # noqa: B006
    check: Annotated[
        bool, typer.Option("--check", help="Fail where something got worse than the baseline.")
    ] = False,
    readme: Annotated[
        bool,
        typer.Option(
            "--readme", help="Measure nothing: write report and README from the last run."
        ),
    ] = False,
    set_baseline: Annotated[
        bool, typer.Option("--set-baseline", help="Measure nothing: the last run is the baseline.")
    ] = False,
) -> None:
    """Measure cold start, latency, throughput, load, size, memory, against bars and rivals."""
    from feedbench import baseline, report, suite
    from feedops.models.releases import newest_bundle

    if readme or set_baseline:
        last = Results.read(RESULTS)
        if set_baseline:
            last.write(baseline.BASELINE)
        if readme:
            write_readme(last)
        return
    if unknown := set(only) - set(suite.MEASUREMENTS):
        raise OperationError(
            f"no measurement {unknown.pop()!r}; there are: {', '.join(suite.MEASUREMENTS)}"
        )
    results = suite.run(bundle or newest_bundle(), quick=quick, only=only, console=console)
    written = PART if only else RESULTS  # the README is made of whole runs alone
    results.write(written)
    path = report.write(results, written.parent)
    show(results)
    console.print(f"{written}, {path}", soft_wrap=True, highlight=False)
    if check:
        hold_against(results, Results.read(baseline.BASELINE))


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
        int,
        typer.Option(
            metavar="PORT", help="Open Locust's web page on this port, and let it say what to send."
        ),
    ] = 0,
) -> None:
    """Load the HTTP front with Locust: 100 requests/s, saturation, three times that, recovery."""
    from feedbench.load import drive
    from feedops.models.releases import newest_bundle

    drive.run(
        drive.LoadOptions(
            bundle=bundle or newest_bundle(),
            url=url,
            environments=environments,
            steady_s=seconds,
            web_port=web,
        ),
        console,
    )


def write_readme(results: Results) -> None:
    from feedbench import plots, report

    path = report.write(results, report.FOLDER)
    pictures = {
        name: str(report.FOLDER.relative_to(PROJECT) / f"{name}.png")
        for name in plots.names(results)
    }
    text = report.into_readme(README.read_text(), report.readme_block(results, pictures))
    README.write_text(text)
    console.print(f"{README}, {path}", soft_wrap=True, highlight=False)


def show(results: Results) -> None:
    from feedbench.report import measured

    table = Table(title=f"feedrank bench, {results.effort}, {results.setup['target']}")
    table.add_column("what")
    for heading in ("measured", "bar", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results.rows:
        met = "[green]met[/]" if row.is_met else "[bold red]missed[/]"
        sign = "<=" if row.better == "lower" else ">="
        bar = f"{sign} {row.bar:g} {row.unit}".rstrip()
        table.add_row(f"{row.what}\n[dim]{row.note}[/]", measured(row), bar, met)
    console.print(table)
    for note in results.notes:
        console.print(note, style="yellow", markup=False)


def hold_against(results: Results, before: Results) -> None:
    """Raises OperationError where something got worse."""
    from feedbench import baseline

    changes = baseline.compare(results, before)
    for change in baseline.got_better(changes):
        console.print(f"[green]better[/] {change.key}: {change.before:.3g} -> {change.now:.3g}")
    if worse := baseline.got_worse(changes):
        raise OperationError(
            "\n".join(
                ["got worse by more than noise:"]
                + [
                    f"{each.key}: {each.before:.3g} -> {each.now:.3g} {each.unit}, "
                    f"{each.worse:.2f} times as bad"
                    for each in worse
                ]
            )
        )
    console.print(f"nothing got worse by more than noise: {len(changes)} numbers compared")
