"""What a benchmark run found, as JSON on disk."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from feedbench.stats import Estimate
from feedops.errors import OperationError

FORMAT = 1
OURS = "feedrank"
FLOOR = "parse, run, answer"  # what only does that, of the parts that ours is built of
Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Row:
    """One promise and what became of it. `low` and `high` enclose the value with 95 %, or are it.

    A `portable` row is a ratio or a size, which another machine can be compared with.
    """

    key: str
    what: str
    value: float
    low: float
    high: float
    unit: str  # "x", "MB", "ms" or none
    bar: float
    better: Better
    portable: bool = True
    note: str = ""

    @property
    def is_met(self) -> bool:
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


def row(
    key: str,
    what: str,
    value: Estimate | float,
    *,
    bar: float,
    unit: str = "x",
    better: Better = "lower",
    portable: bool = True,
    note: str = "",
) -> Row:
    found = value if isinstance(value, Estimate) else Estimate(value, value, value)
    return Row(key, what, found.value, found.low, found.high, unit, bar, better, portable, note)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one module of the benchmark found. `details` is plain data for plots and tables."""

    rows: tuple[Row, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
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
        path.write_text(json.dumps({"format": FORMAT} | asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises OperationError where there is none, or one of another format."""
        try:
            data = json.loads(path.read_bytes())
            if data.pop("format") != FORMAT:
                raise OperationError(f"{path} was written by another version; run it again")
            rows = tuple(Row(**each) for each in data.pop("rows"))
            return cls(rows=rows, notes=tuple(data.pop("notes")), **data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperationError(
                f"{path} holds no results ({error}); `feedrank bench` makes them"
            ) from error
