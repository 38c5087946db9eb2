"""Calls a probe of `warm`. Arguments: its name, where its result goes, its options as JSON."""

import json
import sys
from pathlib import Path

from feedbench.probes import warm

name, result, options = sys.argv[1:]
measured = getattr(warm, name)(**json.loads(options))
Path(result).write_text(json.dumps(measured))
