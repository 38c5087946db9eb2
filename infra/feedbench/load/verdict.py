"""What the log of a load says, in numbers and in words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ("sent_s", "phase", "name", "status", "expected", "taken_ms")
GOOD, THROTTLED, ERROR = "as expected", "429", "other error"
STEADY, OVERLOAD, RECOVERY = "steady", "overload", "recovery"
RECOVERY_BAR_S = 5.0
Verdict = dict[str, Any]
WINDOW_S = 3  # of the ramp, for its saturation


def read(log: Path) -> pd.DataFrame:
    return requests([json.loads(line) for line in log.read_text().splitlines()])


def requests(lines: list[list[Any]]) -> pd.DataFrame:
    """A row a request in the order of sending, with its outcome, and the second of its response.
    `sent_s` counts from the start; `status` is 0 where there was no response."""
    frame = pd.DataFrame(lines, columns=list(COLUMNS)).sort_values("sent_s", ignore_index=True)
    is_good, is_throttled = frame["status"] == frame["expected"], frame["status"] == int(THROTTLED)
    frame["outcome"] = np.select([is_good, is_throttled], [GOOD, THROTTLED], ERROR)
    frame["second"] = (frame["sent_s"] + frame["taken_ms"] / 1_000).astype(int)
    return frame


def verdict(frame: pd.DataFrame) -> Verdict:
    """`saturation_per_s` is the best mean of good responses in three seconds on end; `recovery_s`
    the time from the overload's end to the last refusal."""
    good = np.bincount(frame.loc[frame["outcome"] == GOOD, "second"])
    window = min(WINDOW_S, len(good))
    best = np.convolve(good, np.ones(window) / window, "valid").max() if window else 0.0
    after = frame[frame["phase"] == RECOVERY]
    refused = after.loc[after["outcome"] != GOOD, "sent_s"]
    phases = [_phase(str(name), rows) for name, rows in frame.groupby("phase", sort=False)]
    statuses = frame["status"].value_counts(sort=False)
    return {
        "phases": phases,
        "saturation_per_s": float(best),
        "recovery_s": float(refused.max() - after["sent_s"].min()) if len(refused) else 0.0,
        "statuses": {str(status): int(count) for status, count in statuses.items()},
    }


def _phase(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    seconds = max(float(rows["sent_s"].max() - rows["sent_s"].min()), 1.0)
    counts = rows["outcome"].value_counts()
    good_ms = rows.loc[rows["outcome"] == GOOD, "taken_ms"]
    p50, p99 = np.percentile(good_ms, [50, 99]).tolist() if len(good_ms) else (0.0, 0.0)
    return {
        "name": name,
        "seconds": round(seconds, 1),
        "requests": len(rows),
        "good_per_s": round(len(good_ms) / seconds, 1),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "throttled": int(counts.get(THROTTLED, 0)),
        "errors": int(counts.get(ERROR, 0)),
    }


def table(verdict: Verdict) -> str:
    """As Markdown."""
    names = ("phase", "seconds", "requests", "good/s", "p50 ms", "p99 ms", "429", "errors")
    rows = [[f"{value}" for value in phase.values()] for phase in verdict["phases"]]
    lines = [" | ".join(row) for row in (names, ["---", *["--:"] * 7], *rows)]
    saturation, recovery = verdict["saturation_per_s"], verdict["recovery_s"]
    last = f"Saturated at {saturation:.0f}/s; {recovery:.1f} s from overload to no refusal."
    return "\n".join([*lines, "", last])


def problems(verdict: Verdict) -> Iterator[str]:
    """What is wrong with a load, in words."""
    phases = {phase["name"]: phase for phase in verdict["phases"]}
    for name, phase in phases.items():
        if phase["errors"]:
            yield f"{phase['errors']} errors other than 429 in the phase {name}"
    if throttled := phases.get(STEADY, {}).get("throttled"):
        yield f"{throttled} requests were throttled at a steady load"
    if phases.get(OVERLOAD, {}).get("throttled") == 0:
        yield "the overload was not throttled"
    if not verdict["recovery_s"] <= RECOVERY_BAR_S:
        yield f"recovery took {verdict['recovery_s']:.1f} s, over {RECOVERY_BAR_S:g} s"
