"""Requests/s over a day, or over the time that a CSV file covers."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feedops.errors import OperationError
from feedops.plan.queues import Array

DAY_S = 86_400
NAMES = ("constant", "daily", "spiky")
NIGHT = 0.2  # of the peak, at 04:00
QUIET = 0.1  # of the peak, between spikes
SPIKE_EVERY_S, SPIKE_FADES_S = 3_600, 300
MOST_STEPS = 2 * DAY_S


@dataclass(frozen=True, slots=True)
class Traffic:
    """`rates_per_s`: one for each step."""

    name: str
    step_s: float
    rates_per_s: Array

    @property
    def peak_per_s(self) -> float:
        return float(self.rates_per_s.max())

    @property
    def duration_s(self) -> float:
        return self.step_s * len(self.rates_per_s)

    @property
    def requests(self) -> float:
        return float(self.rates_per_s.sum()) * self.step_s


def traffic(curve: str, peak_per_s: float | None) -> Traffic:
    """A day of one of NAMES, or a CSV file's time. A file's rates are its own, unless a peak scales
    them."""
    if curve not in NAMES:
        return _of_file(Path(curve), peak_per_s)
    step_s = 1.0 if curve == "spiky" else 10.0
    times_s = np.arange(0.0, DAY_S, step_s) + step_s / 2.0
    shape = {"constant": _constant, "daily": _daily, "spiky": _spiky}[curve](times_s)
    return Traffic(curve, step_s, (peak_per_s or 0.0) * shape)


def _constant(times_s: Array) -> Array:
    return np.ones_like(times_s)


def _daily(times_s: Array) -> Array:
    """A sine, with the peak at 16:00."""
    wave = np.cos(2.0 * np.pi * (times_s / DAY_S - 16 / 24))
    return NIGHT + (1.0 - NIGHT) * (1.0 + wave) / 2.0


def _spiky(times_s: Array) -> Array:
    """Each hour a message to everybody: from a tenth to the peak at once, fading in minutes."""
    since_s = (times_s - SPIKE_EVERY_S / 2) % SPIKE_EVERY_S
    fading: Array = np.exp(-(since_s - since_s.min()) / SPIKE_FADES_S)
    return QUIET + (1.0 - QUIET) * fading


def _of_file(path: Path, peak_per_s: float | None) -> Traffic:
    """Columns `seconds` and `requests_per_s`; between the rows the rate changes evenly. Raises
    OperationError for anything else."""
    seconds, rates = _rows(path)
    span_s = seconds[-1] - seconds[0]
    step_s = max(1.0, float(np.ceil(span_s / MOST_STEPS)))
    times_s = np.arange(seconds[0], seconds[-1], step_s) + step_s / 2.0
    values = np.interp(times_s, seconds, rates)
    if not values.max() > 0.0:
        raise OperationError(f"{path}: no row has a rate above 0")
    scale = peak_per_s / float(values.max()) if peak_per_s else 1.0
    return Traffic(path.name, step_s, scale * values)


def _rows(path: Path) -> tuple[Array, Array]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if not {"seconds", "requests_per_s"} <= set(reader.fieldnames or ()):
            raise OperationError(f"{path}: the first line must name seconds and requests_per_s")
        try:
            pairs = [(float(row["seconds"]), float(row["requests_per_s"])) for row in reader]
        except (TypeError, ValueError) as error:
            raise OperationError(f"{path}, line {reader.line_num}: not two numbers") from error
    values = np.array(pairs).reshape(-1, 2)
    seconds, rates = values[:, 0], values[:, 1]
    if len(pairs) < 2 or not (np.diff(seconds) > 0.0).all() or not np.isfinite(values).all():  # noqa: PLR2004
        raise OperationError(f"{path}: it takes two rows or more, with seconds that rise")
    if not (rates >= 0.0).all() or not seconds[-1] - seconds[0] >= 1.0:
        raise OperationError(f"{path}: rates must not be negative, and cover a second or more")
    return seconds, rates
