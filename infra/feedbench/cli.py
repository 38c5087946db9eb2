"""The `feedrank` command with the benchmark's own two. What is heavy is imported when one runs."""

from typing import Annotated

from rich.markdown import Markdown
from typer import Option

from feedops.cli.app import output
from feedops.cli.main import app
from feedops.cli.options import BundleOption
from feedops.errors import OperationError
from feedops.workspace import DATA, PROJECT

README = PROJECT / "README.md"
DIRECTORY = DATA / "bench"

Only = Annotated[list[str] | None, Option(help="Take this measurement alone; repeatable.")]
Quick = Annotated[bool, Option("--quick", help="Fewer rounds: minutes, not an hour.")]
Check = Annotated[bool, Option("--check", help="Fail if something is worse than the baseline.")]
Readme = Annotated[bool, Option("--readme", help="Write report and README from the last run.")]
Set = Annotated[bool, Option("--set-baseline", help="Make the last run the baseline.")]
Url = Annotated[str, Option(help="The address of a running server; without it one is started.")]
Seconds = Annotated[int, Option(min=5, help="Length of the steady phase.")]


def bench(
    *,
    bundle: BundleOption = None,
    quick: Quick = False,
    only: Only = None,
    check: Check = False,
    readme: Readme = False,
    set_baseline: Set = False,
) -> None:
    """Measure cold start, latency, throughput, load, size, memory: with bars and competitors."""
    from feedbench.measures import LOST, measure
    from feedbench.report import markdown
    from feedbench.results import Results, got_worse
    from feedops.models.bundles import newest_bundle
    from feedops.plan.measured import BASELINE

    last = DIRECTORY / "results.json"
    if set_baseline:
        Results.read(last).write(BASELINE)
    if readme:
        written = markdown.write_readme(Results.read(last), README)
        output.print(f"{README}, {written}", soft_wrap=True, highlight=False)
    if readme or set_baseline:
        return
    effort = "quick" if quick else "full"
    results = measure(lambda: bundle or newest_bundle(), effort, only or [], output)
    path = DIRECTORY / "part" / last.name if only else last  # the README is made of whole runs
    results.write(path)
    table = markdown.table(results.rows).replace("<br><sub>", " (").replace("</sub>", ")")
    output.print(Markdown(table))
    for note in results.notes:
        output.print(note, style="yellow", markup=False)
    output.print(f"{path}, {markdown.write(results, path.parent)}", soft_wrap=True)
    problems = [note for note in results.notes if note.startswith(LOST)]
    if check:
        problems += got_worse(results, Results.read(BASELINE))
    if problems:
        raise OperationError("\n".join(problems))


def load(
    *,
    bundle: BundleOption = None,
    url: Url = "",
    seconds: Seconds = 60,
) -> None:
    """Load the HTTP front with Locust: 100 requests/s, saturation, overload, recovery."""
    from feedbench.load import drive
    from feedops.models.bundles import newest_bundle

    directory = (bundle or newest_bundle()).absolute()
    drive.run(directory, url, seconds, output)


app.add_commands("Benchmark", bench, load)


def main() -> None:
    app()
