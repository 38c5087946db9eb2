"""The sizes of the long tests, and their counts at the end of a session.

`make test` runs a short version of each test here; `make fuzz`, `make chaos` and `make soak` set
the variables for the long version.
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

# Settings of servers: the machine may be busy with other tests.
LEFT_MS = 300_000
PATIENT = {"REQUEST_TIMEOUT_MS": str(LEFT_MS)}
GENEROUS = PATIENT | {"MAX_ITEMS": "1000", "MAX_BODY_BYTES": "6291456"}

Count = Callable[[object], None]
Fuzz = Callable[..., None]
Table = Callable[[tuple[str, ...], tuple[object, ...]], None]
_rows: dict[tuple[str, ...], list[tuple[object, ...]]] = defaultdict(list)
_counts: dict[str, Counter[str]] = defaultdict(Counter)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Returns a function that counts one case of this test by its outcome."""
    outcomes = _counts[request.node.name.removeprefix("test_").replace("_", " ")]

    def one(outcome: object) -> None:
        outcomes[str(outcome)] += 1

    return one


@pytest.fixture
def table() -> Table:
    """Returns a function that adds a row to the table with these headings."""
    return lambda headings, row: _rows[headings].append(row)


@pytest.fixture
def fuzz() -> Fuzz:
    """`fuzz(check, strategy, regressions)` runs the check on this version's number of cases, and on
    each case that once failed. The short version uses the same cases every time."""

    def run(
        check: Callable[[Any], None],
        strategy: SearchStrategy[Any],
        regressions: tuple[Any, ...] = (),
        cases: int = CASES,
    ) -> None:
        def test(case: Any) -> None:
            check(case)

        for case in regressions:
            test = example(case)(test)
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
    """Captures what the function prints: its log, its metrics, its records."""
    with contextlib.redirect_stdout(io.StringIO()) as output, fakes.log_to(output):
        yield output


def lines_of(output: io.StringIO) -> list[str]:
    """Not `splitlines`: an id may hold what Unicode calls the end of a line."""
    return [line for line in output.getvalue().split("\n") if line]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _counts:
        terminalreporter.section("cases")
    for name, outcomes in _counts.items():
        summary = ", ".join(
            f"{outcome}: {number:,}" for outcome, number in sorted(outcomes.items())
        )
        terminalreporter.write_line(f"{name}: {outcomes.total():,} ({summary})")
    for headings, rows in _rows.items():
        terminalreporter.section(f"{len(rows)} rows")
        texts = [[str(cell) for cell in row] for row in (headings, *rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for row in texts:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            terminalreporter.write_line("  ".join(cells).rstrip())
