"""Resident memory of one environment over many requests. Arguments: result, options as JSON.

With `leak_bytes` each request leaves as much behind: the control that must be found out.
"""

import json
import os
import sys
from itertools import cycle, islice
from pathlib import Path

import handler
from feedbench.probes.lambda_context import LambdaContext

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
WARM_UP_CALLS = 2_000
READINGS = 50

kept: list[bytearray] = []


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE_BYTES / 1e6


result, options_json = sys.argv[1:]
options = json.loads(options_json)
context = LambdaContext()
after_init_mb = resident_mb()
events = cycle(event for name in options["events"] for event in json.loads(Path(name).read_bytes()))


def serve(calls: int) -> None:
    for event in islice(events, calls):
        handler.lambda_handler(event, context)
        if options["leak_bytes"]:
            kept.append(bytearray(b"x" * options["leak_bytes"]))


serve(WARM_UP_CALLS)
readings_mb = [resident_mb()]
for _ in range(READINGS):
    serve(options["requests"] // READINGS)
    readings_mb.append(resident_mb())
found = {"after_init_mb": after_init_mb, "readings_mb": readings_mb}
Path(result).write_text(json.dumps(found))
