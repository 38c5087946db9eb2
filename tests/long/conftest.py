"""The sizes of the long forms, and their counts at the end of a run.

`make test` runs each test here in its short form; `make fuzz`, `make chaos` and `make soak` set the
variables that make it long.
"""

import contextlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis.strategies import SearchStrategy

import fakes

SHORT_CASES = 40
CASES = int(os.environ.get("FUZZ_CASES", SHORT_CASES))

Count = Callable[[object], None]
Fuzz = Callable[..., None]
Table = Callable[[tuple[str, ...], tuple[object, ...]], None]
_rows: dict[tuple[str, ...], list[tuple[object, ...]]] = defaultdict(list)
_counts: dict[str, Counter[str]] = defaultdict(Counter)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Counts one case of this test by its outcome."""
    outcomes = _counts[request.node.name.removeprefix("test_").replace("_", " ")]

    def one(outcome: object) -> None:
        outcomes[str(outcome)] += 1

    return one


@pytest.fixture
def table() -> Table:
    """Adds a row to the table with these headings."""
    return lambda headings, row: _rows[headings].append(row)


@pytest.fixture
def fuzz() -> Fuzz:
    """`fuzz(check, strategy, kept)` runs the check on as many cases as this form has, and on each
    case that was kept because it once failed. The short form has the same cases each time."""

    def run(
        check: Callable[[Any], None],
        strategy: SearchStrategy[Any],
        kept: tuple[Any, ...] = (),
        cases: int = CASES,
    ) -> None:
        def test(case: Any) -> None:
            check(case)

        for each in kept:
            test = example(each)(test)
        sized = settings(
            max_examples=cases,
            derandomize=CASES <= SHORT_CASES,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        sized(given(strategy)(test))()

    return run


@contextlib.contextmanager
def printing() -> Iterator[io.StringIO]:
    """All that the function prints: its log, its metrics, its records."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, fakes.log_to(printed):
        yield printed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _counts:
        terminalreporter.section("cases")
    for name, outcomes in _counts.items():
        told = ", ".join(f"{outcome}: {number:,}" for outcome, number in sorted(outcomes.items()))
        terminalreporter.write_line(f"{name}: {outcomes.total():,} ({told})")
    for headings, rows in _rows.items():
        terminalreporter.section(f"{len(rows)} rows")
        texts = [[str(cell) for cell in row] for row in (headings, *rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for row in texts:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            terminalreporter.write_line("  ".join(cells).rstrip())
