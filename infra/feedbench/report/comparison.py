"""What got worse since the committed baseline, by more than noise.

Only ratios and sizes are compared: the baseline was made on another machine.
"""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from feedbench.results import Results, Row
from feedops.errors import OperationError

BASELINE = Path(__file__).parents[1] / "baseline.json"
TOLERANCE = 0.10  # between runs on one machine, beyond the interval within a run


class Change(NamedTuple):
    """`worse` is how many times as bad it has become; below 1 it got better."""

    text: str
    worse: float
    beyond_noise: bool


def check(now: Results, baseline: Results, console: Console) -> None:
    """Raises OperationError where something got worse."""
    changes = compare(now, baseline)
    if worse := got_worse(changes):
        raise OperationError("\n".join(["got worse by more than noise:", *(c.text for c in worse)]))
    console.print(f"nothing got worse by more than noise: {len(changes)} numbers compared")


def compare(now: Results, baseline: Results) -> list[Change]:
    """Every row that both have, the worst first."""
    before = {row.key: row for row in baseline.rows if row.portable}
    rows = [row for row in now.rows if row.portable and row.key in before]
    return sorted((_change(row, before[row.key]) for row in rows), key=lambda each: -each.worse)


def got_worse(changes: list[Change]) -> list[Change]:
    return [change for change in changes if change.worse > 1 and change.beyond_noise]


def _change(now: Row, before: Row) -> Change:
    """Beyond noise: the two intervals are apart, and the values by more than the tolerance."""
    growth = now.value / before.value
    worse = growth if now.better == "lower" else 1 / growth
    apart = now.low > before.high or now.high < before.low
    text = f"{now.key}: {before.value:.3g} -> {now.value:.3g} {now.unit}, {worse:.2f} times as bad"
    return Change(text, worse, apart and max(worse, 1 / worse) > 1 + TOLERANCE)
