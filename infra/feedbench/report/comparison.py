"""What got worse since the committed baseline, by more than noise.

Only ratios and sizes are compared: the baseline was made on another machine.
"""

from collections.abc import Iterator
from pathlib import Path

from feedbench.results import Results

BASELINE = Path(__file__).parents[1] / "baseline.json"
TOLERANCE = 0.10  # between runs on one machine, beyond the interval within a run


def got_worse(now: Results, baseline: Results) -> Iterator[str]:
    """Rows of both whose two intervals are apart, and whose values are by more than the
    tolerance."""
    earlier = {row.key: row for row in baseline.rows if row.portable}
    for row in (row for row in now.rows if row.portable and row.key in earlier):
        before = earlier[row.key]
        growth = row.value / before.value
        worse = growth if row.better == "lower" else 1 / growth
        apart = row.low > before.high or row.high < before.low
        if apart and worse > 1 + TOLERANCE:
            change = f"{before.value:.3g} -> {row.value:.3g} {row.unit}"
            yield f"got worse: {row.key}: {change}, {worse:.2f} times as bad"
