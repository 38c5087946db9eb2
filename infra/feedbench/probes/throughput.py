"""A warm environment that works when it is told to. Arguments: where to answer (a file
descriptor), then files of events, one for each number of items.

Each line of standard input is `FILE SECONDS`, the number of the file; the answer is calls a second.
"""

import json
import os
import sys
from itertools import cycle
from pathlib import Path
from time import perf_counter

import handler
from feedbench.probes.lambda_context import LambdaContext

context = LambdaContext()
answer_to = int(sys.argv[1])
files = [cycle(json.loads(Path(name).read_bytes())) for name in sys.argv[2:]]
for line in sys.stdin:
    at, seconds = line.split()
    events, calls = files[int(at)], 0
    begun = perf_counter()
    until = begun + float(seconds)
    while perf_counter() < until:
        handler.lambda_handler(next(events), context)
        calls += 1
    os.write(answer_to, f"{calls / (perf_counter() - begun)}\n".encode())
