"""One package's import in a fresh process. Arguments: result, and the package or nothing."""

import sys
import time
from importlib import import_module

if sys.argv[2]:
    import_module(sys.argv[2])
finished_ns = time.monotonic_ns()
with open(sys.argv[1], "w") as file:  # noqa: PTH123
    file.write(str(finished_ns))
