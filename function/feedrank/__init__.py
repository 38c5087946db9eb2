"""The request path: what runs in Lambda."""

import os

__version__ = "0.1.0"

# The one write to the environment at import: ONNX Runtime reads it when it is imported, which any
# module may do first. From 1.32 on it would write a machine id and a usage database into the home
# directory, and send them to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
