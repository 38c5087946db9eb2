"""Calls a probe. Arguments: MODULE.FUNCTION, where its result goes, its options as JSON."""

import json
import sys
from importlib import import_module
from pathlib import Path

name, result, options = sys.argv[1:]
module, _, function = name.partition(".")
measured = getattr(import_module(f"feedbench.probes.{module}"), function)(**json.loads(options))
Path(result).write_text(json.dumps(measured))
