"""The README's example: what the command prints for 10,000 requests a second."""

import io

from rich.console import Console

from feedops.errors import OperationError
from feedops.plan import options, report
from feedops.plan.plan import make

BEGIN, END = "<!-- plan: made by `feedrank bench --readme` -->", "<!-- plan: end -->"
RATE_PER_S = 10_000
WIDTH = 120  # of the text in the README


def example() -> str:
    """With the marks around it."""
    text = io.StringIO()
    plan = make(options.workload(options.Given(rate_per_s=RATE_PER_S)))
    report.print_plan(plan, Console(file=text, width=WIDTH))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    shown = "\n".join(line for line in lines if line)
    command = f"$ feedrank plan --rate {RATE_PER_S}"
    return f"{BEGIN}\n\n```console\n{command}\n{shown}\n```\n\n{END}"


def with_example(readme: str) -> str:
    """Raises OperationError without a place."""
    return into_readme(readme, example())


def into_readme(readme: str, block: str) -> str:
    """The README with this block in place of the old one, which has the same first and last line.
    Raises OperationError without a place."""
    lines = block.splitlines()
    first, last = lines[0], lines[-1]
    before, begin, rest = readme.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise OperationError(f"README.md lacks the lines {first} and {last}")
    return before + block + after
