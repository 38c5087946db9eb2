"""Results as Markdown: a report, and the shorter block that the README shows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from feedbench.report import plots
from feedbench.results import FLOOR, Results, Row
from feedops.plan import stores
from feedops.plan.readme import into_readme, with_example

DIRECTORY = Path(__file__).parent
BEGIN = "<!-- performance: made by `feedrank bench --readme` -->"
END = "<!-- performance: end -->"
TINY, SMALL = 0.001, 10  # below, a number is shown as a power of ten; with decimals


def write(results: Results, directory: Path) -> Path:
    """The report and its pictures."""
    plots.draw(results, directory)
    path = directory / "README.md"
    path.write_text(_render("report", results=results, names=plots.names(results), floor=FLOOR))
    return path


def write_readme(results: Results, readme: Path) -> Path:
    """The report beside this module, and the README's block with its pictures; the table of
    stores; and the plan, which is made of the baseline."""
    block = readme_block(results, f"{DIRECTORY.relative_to(readme.parent)}/")
    text = into_readme(into_readme(readme.read_text(), block), stores.block())
    readme.write_text(with_example(text))
    return write(results, DIRECTORY)


def readme_block(results: Results, directory: str) -> str:
    """`directory` is where the README finds the pictures."""
    options = {"names": plots.names(results), "directory": directory, "begin": BEGIN, "end": END}
    return _render("block", results=results, **options).removesuffix("\n")


def table(rows: Iterable[Row]) -> str:
    return str(_macros().table(rows)).rstrip()


def provenance(results: Results) -> str:
    return str(_macros().provenance(results))


def measured(row: Row) -> str:
    spread = f" [{_number(row.low)}, {_number(row.high)}]" if row.low < row.high else ""
    return f"{_number(row.value)} {row.unit}".rstrip() + spread


def bar(row: Row) -> str:
    limit = "at most" if row.better == "lower" else "at least"
    return f"{limit} {_number(row.bar)} {row.unit}".rstrip()


def _number(value: float) -> str:
    if 0 < abs(value) < TINY:
        return f"{value:.1e}"
    return f"{value:.2f}" if 0 < abs(value) < SMALL else f"{value:,.0f}"


def _render(template: str, **values: object) -> str:
    return _templates.get_template(f"{template}.md.j2").render(values).rstrip() + "\n"


def _macros() -> Any:  # noqa: ANN401 Jinja's
    return _templates.get_template("macros.md.j2").module


_templates = Environment(
    loader=FileSystemLoader(DIRECTORY),
    autoescape=select_autoescape(),  # for HTML, which there is none of
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"measured": measured, "bar": bar}
