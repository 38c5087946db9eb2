"""What the emulator's log says about invocations.

Its REPORT line can't be taken as it is: the duration of a first invocation holds the init too,
`Init Duration` is not the init's, and the memory is the configured size. INIT REPORT and
INVOKE RTDONE have the true times.
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
    """One invocation that came to an end. `init_ms` where it began with an init."""

    request_id: str
    duration_ms: float
    init_ms: float | None = None

    def line(self, memory_mb: int, used_mb: int | None) -> str:
        """As Lambda writes it, the init billed too. `used_mb` None where nobody knows."""
        used = f"\tMax Memory Used: {used_mb} MB" if used_mb is not None else ""
        init = f"\tInit Duration: {self.init_ms:.2f} ms" if self.init_ms is not None else ""
        return (
            f"REPORT RequestId: {self.request_id}\tDuration: {self.duration_ms:.2f} ms"
            f"\tBilled Duration: {ceil(self.duration_ms + (self.init_ms or 0.0))} ms"
            f"\tMemory Size: {memory_mb} MB{used}{init}"
        )


def reports(log: Iterable[str]) -> Iterator[Report]:
    """Each invocation that the log saw the end of; one that killed its runtime leaves none."""
    init_ms: float | None = None
    duration_ms: float | None = None
    for line in log:
        if found := _INIT.search(line):
            init_ms = float(found[1])
        elif found := _DONE.search(line):
            duration_ms = float(found[1])
        elif found := _REPORT.search(line):
            timed_out_ms = float(found[2])  # where the emulator saw no other end
            yield Report(found[1], timed_out_ms if duration_ms is None else duration_ms, init_ms)
            init_ms = duration_ms = None


def printed_by_function(log: Iterable[str]) -> list[str]:
    """The log without the emulator's own lines."""
    return [line for line in log if not _EMULATOR_LINE.match(line) and not _FRAME_LINE.match(line)]
