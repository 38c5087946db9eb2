"""The floor under a cold start: a process that only imports. Argument: result."""

import sys
import time

import fastapi  # noqa: F401
import mangum  # noqa: F401
import numpy  # noqa: F401, ICN001
import onnxruntime  # noqa: F401
from aws_lambda_powertools import Logger, Metrics  # noqa: F401

finished_ns = time.monotonic_ns()
with open(sys.argv[1], "w") as file:  # noqa: PTH123
    file.write(str(finished_ns))
