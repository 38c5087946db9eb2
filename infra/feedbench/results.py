"""The benchmark's plan, and what a run measured, as JSON on disk."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel

from feedbench.stats import Estimate
from feedops.errors import OperationError

PLAN: dict[str, Any] = tomllib.loads(Path(__file__).with_name("plan.toml").read_text())
TOLERANCE = 0.10  # between runs on one machine, beyond the interval within a run
OURS = "feedrank"
REST = "all else"  # of the stages of something
FLOOR = "parse, run, answer"  # an app that only does that, of the parts that ours is built of


class Row(BaseModel, frozen=True):
    """One promise and its measured value. `low` and `high`: its 95 % interval, or itself.

    A `portable` row is a ratio or a size, which another machine can be compared with.
    """

    key: str
    what: str
    value: float
    low: float
    high: float
    unit: str = "x"  # or "MB", "ms" or none
    bar: float
    better: Literal["lower", "higher"] = "lower"
    portable: bool = True
    note: str = ""

    @property
    def is_met(self) -> bool:
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


def _bars() -> Iterator[tuple[str, dict[str, Any]]]:
    for key, promise in PLAN["bars"].items():
        bars = promise["bar"] if isinstance(promise["bar"], dict) else {"": promise["bar"]}
        for number, bar in bars.items():
            what = promise["what"].format(number=number)
            yield key.format(number=number), {**promise, "what": what, "bar": bar}


BARS = dict(_bars())


def row(key: str, value: Estimate | float, note: str = "") -> Row:
    """The value beside its bar."""
    interval = value if isinstance(value, Estimate) else Estimate(value, value, value)
    return Row(key=key, note=note, **BARS[key], **asdict(interval))


class Results(BaseModel, frozen=True):
    """`details` is plain data for plots and tables."""

    format: Literal[1] = 1
    date: str  # UTC
    effort: str
    machine: dict[str, Any]
    versions: dict[str, str]
    setup: dict[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    details: dict[str, Any]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.model_dump(), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises OperationError where there are none, or some of another format."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise OperationError(
                f"{path} holds no results; `feedrank bench` makes them\n{error}"
            ) from error


def got_worse(now: Results, baseline: Results) -> Iterator[str]:
    """Rows of both whose intervals are apart, and whose values are by more than the tolerance.
    Only ratios and sizes are compared: the baseline was made on another machine."""
    earlier = {row.key: row for row in baseline.rows if row.portable}
    for row in (row for row in now.rows if row.portable and row.key in earlier):
        before = earlier[row.key]
        growth = row.value / before.value
        worse = growth if row.better == "lower" else 1 / growth
        apart = row.low > before.high or row.high < before.low
        if apart and worse > 1 + TOLERANCE:
            change = f"{before.value:.3g} -> {row.value:.3g} {row.unit}"
            yield f"got worse: {row.key}: {change}, {worse:.2f} times as bad"
