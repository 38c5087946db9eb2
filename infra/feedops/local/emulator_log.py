"""Reads the emulator's log: the duration of each invocation, and what the function printed.

The emulator's REPORT line is wrong in three ways: the duration of a first invocation includes the
init, `Init Duration` is not the init's, and the memory used is the configured size. INIT REPORT
and INVOKE RTDONE have the true times.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

_EMULATOR_LINE = re.compile(r"\d\d \w{3} \d{4} [\d:,]+ \[[A-Z]+\] \(rapid\) ")
_FRAME_LINE = re.compile(r"(START|END|REPORT) RequestId: ")
_INIT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)\)")
_DONE = re.compile(r"INVOKE RTDONE\(.*duration: ([\d.]+)ms\)")
_REPORT = re.compile(r"REPORT RequestId: (\S+)\s.*?\bDuration: ([\d.]+) ms\s+Billed")


@dataclass(frozen=True, slots=True)
class Report:
    """One completed invocation. `init_ms` is None unless the invocation began with an init."""

    request_id: str
    duration_ms: float
    init_ms: float | None = None

    @property
    def billed_ms(self) -> int:
        """Init included, rounded up, as Lambda bills."""
        return ceil(self.duration_ms + (self.init_ms or 0.0))

    def line(self, memory_mb: int, used_mb: int | None) -> str:
        """Lambda's own REPORT line. `used_mb` is None where it is not known."""
        used = f"\tMax Memory Used: {used_mb} MB" if used_mb is not None else ""
        init = f"\tInit Duration: {self.init_ms:.2f} ms" if self.init_ms is not None else ""
        return (
            f"REPORT RequestId: {self.request_id}\tDuration: {self.duration_ms:.2f} ms"
            f"\tBilled Duration: {self.billed_ms} ms"
            f"\tMemory Size: {memory_mb} MB{used}{init}"
        )


def reports(log: Iterable[str]) -> Iterator[Report]:
    """One for each completed invocation; an invocation that killed its runtime has none."""
    init_ms: float | None = None
    duration_ms: float | None = None
    for line in log:
        if match := _INIT.search(line):
            init_ms = float(match[1])
        elif match := _DONE.search(line):
            duration_ms = float(match[1])
        elif match := _REPORT.search(line):
            # A timed-out invocation has no RTDONE line, and its REPORT line is right.
            reported_ms = float(match[2])
            yield Report(match[1], reported_ms if duration_ms is None else duration_ms, init_ms)
            init_ms = duration_ms = None


def printed_by_function(log: Iterable[str]) -> list[str]:
    """The log without the emulator's own lines."""
    return [line for line in log if not _EMULATOR_LINE.match(line) and not _FRAME_LINE.match(line)]
