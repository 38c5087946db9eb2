"""What Locust's statistics say of a load, in numbers and in words."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

PHASES = ("steady", "ramp", "overload", "recovery")
REFUSED = ", 429"  # ends the name of what was refused in a phase
COLUMNS = ("phase", "seconds", "requests", "good/s", "p50 ms", "p99 ms", "429", "errors")
RECOVERY_BAR_S = 5.0
WINDOW_S = 3  # of the ramp, for its saturation

Stats = dict[str, dict[str, Any]]  # Locust's own, by name


def phases(stats: Stats) -> pd.DataFrame:
    """A row a phase. The latencies are those of good responses and of errors."""
    return pd.DataFrame([_phase(stats, name) for name in PHASES if name in stats], columns=COLUMNS)


def _phase(stats: Stats, name: str) -> list[Any]:
    served, refused = stats[name], stats.get(name + REFUSED, {}).get("num_requests", 0)
    seconds = max(served["last_request_timestamp"] - served["start_time"], 1.0)
    times_ms = {float(ms): count for ms, count in served["response_times"].items()}
    p50, p99 = np.percentile(np.repeat([*times_ms], [*times_ms.values()]), [50, 99]).round(2)
    requests, errors = served["num_requests"], served["num_failures"]
    good_per_s = round((requests - errors) / seconds, 1)
    return [name, round(seconds, 1), requests + refused, good_per_s, p50, p99, refused, errors]


def saturation_per_s(stats: Stats) -> float:
    """The best mean of responses that weren't refused, over three seconds on end."""
    by_second = pd.DataFrame([stats[name]["num_reqs_per_sec"] for name in PHASES if name in stats])
    total = by_second.sum().sort_index()
    return float(total.rolling(WINDOW_S, min_periods=1).mean().max())


def recovery_s(stats: Stats) -> float:
    """From the overload's end to the last refusal."""
    refused = stats.get(PHASES[-1] + REFUSED)
    return refused["last_request_timestamp"] - stats[PHASES[-1]]["start_time"] if refused else 0.0


def problems(stats: Stats) -> Iterator[str]:
    """What is wrong with a load, in words."""
    table = phases(stats).set_index("phase")
    for name, errors in table["errors"].items():
        if errors:
            yield f"{errors} errors other than 429 in the phase {name}"
    if throttled := table["429"].get("steady"):
        yield f"{throttled} requests were throttled at a steady load"
    if table["429"].get("overload") == 0:
        yield "the overload was not throttled"
    if not (recovered_s := recovery_s(stats)) <= RECOVERY_BAR_S:
        yield f"recovery took {recovered_s:.1f} s, over {RECOVERY_BAR_S:g} s"
