"""Where the rows of a request come from and how old they are, a letter each, for the decision
record and the metrics, and in words for `degraded`."""

import numpy as np
from numpy.typing import NDArray

from feedrank.domain import BoolArray, RowSources

STORE, CACHE, OLD_CACHE, SNAPSHOT, DEFAULTS, UNKNOWN = b"scobdu"
OPEN = 0  # no source yet
STEPS = {OLD_CACHE: "cache", SNAPSHOT: "snapshot", DEFAULTS: "defaults"}
# A minute, an hour, a day, a week at most, or more.
AGES_S = np.array([60.0, 3_600.0, 86_400.0, 604_800.0])
AGES = np.frombuffer(b"mhdwo", np.uint8)
NO_AGE = ord("-")  # of defaults


def _is_one_of(*sources: int) -> BoolArray:
    """(256,) by a source: a look-up takes a tenth of the time of `np.isin`."""
    table = np.zeros(256, bool)
    table[[*sources]] = True
    return table


IS_STORED = _is_one_of(STORE, CACHE, OLD_CACHE)
IS_DEFAULT = _is_one_of(DEFAULTS, UNKNOWN)


def row_sources(
    sources: NDArray[np.uint8], times_s: NDArray[np.float64], now_s: float, refused: int
) -> RowSources:
    """`times_s` are those of events, in Unix seconds."""
    ages_s = np.maximum(now_s - times_s, 0.0)
    letters = AGES[AGES_S.searchsorted(ages_s)]
    letters[IS_DEFAULT[sources]] = NO_AGE
    stored = ages_s[IS_STORED[sources]]
    oldest_s = float(stored.max()) if len(stored) else None
    return RowSources(sources.tobytes().decode(), letters.tobytes().decode(), refused, oldest_s)


def is_all_lost(sources: str) -> bool:
    """Defaults stand for every row, and not only since the store doesn't know the ids."""
    return chr(DEFAULTS) in sources and {*sources} <= {chr(DEFAULTS), chr(UNKNOWN)}


def degraded(used: RowSources) -> tuple[str, ...]:
    """Such as `features:snapshot 37/101`."""
    rows = len(used.sources)
    counts = {step: used.sources.count(chr(source)) for source, step in STEPS.items()}
    return tuple(f"features:{step} {count}/{rows}" for step, count in counts.items() if count)
