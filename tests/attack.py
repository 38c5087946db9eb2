"""Run in a process of its own: loads archives with a payload in each of their texts, and watches.

Arguments: archive, directory to work in, `checked` or `unchecked`. Prints what it saw as JSON.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

import archives
from feedrank.errors import BundleError
from feedrank.model.engines.torch import load_program

archive, directory, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
marker = directory / "ran"
PLANTED = "planted_module"
ENUM = json.dumps({"__enum__": "", "fqn": f"{PLANTED}:A", "name": "A"})
PAYLOADS = (
    f"__import__('os').system('touch {marker}')",
    f"open('{marker}', 'w')",
    f"x')\n__import__('os').system('touch {marker}')\n#",
    json.dumps([1, {"type": "builtins.dict", "context": ENUM, "children_spec": []}]),
    f"{PLANTED}.run",
    "torch.ops.load_library",
)
OF_ANY_NAME = {
    "config", "opset_version", "range_constraints", "sym_bool_values", "sym_float_values",
    "sym_int_values", "tensor_values",
}  # fmt: skip
HARMFUL = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "subprocess.Popen",
    "socket.connect", "socket.bind", "pickle.find_class", "os.remove", "os.rename", "os.mkdir",
}  # fmt: skip
events: list[str] = []


def watch(event: str, details: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(details[2], int) and details[2] & os.O_ACCMODE
    plants = event == "exec" and PLANTED in details[0].co_filename
    runs = event == "exec" and any(str(marker) in str(each) for each in details[0].co_consts)
    if event in HARMFUL or writes or plants or runs:
        events.append("planted" if plants else f"{event} {str(details)[:200]}")


def attempt(records: dict[str, bytes]) -> str:
    """What became of it."""
    try:
        if mode == "checked":
            program = load_program(archives.packed(records))
        else:
            program = torch.export.load(archives.packed(records))
        program.module()(torch.ones(archives.ROWS, archives.WIDTH))
    except BundleError as error:
        return "failed" if "PyTorch refuses" in str(error) else "refused"
    except Exception:  # noqa: BLE001 whatever torch makes of it
        return "failed"
    return "ran as before"


logging.disable(logging.CRITICAL)
(directory / f"{PLANTED}.py").write_text(f"open({str(marker)!r}, 'w').close()")
sys.path.insert(0, str(directory))
whole = archives.read(archive)
assert attempt(whole) == "ran as before", "and all that is imported late is imported now"
outcomes: dict[str, int] = {}
passed: set[str] = set()
sys.addaudithook(watch)
for name in (archives.PROGRAM, archives.WEIGHTS, archives.CONSTANTS):
    data = json.loads(whole[name])
    for change, places in (("replaced", archives.texts(data)), ("renamed", archives.keys(data))):
        known: set[tuple[object, ...]] = set()
        for place in places:
            kind = tuple(
                "*" if isinstance(part, int) or before in OF_ANY_NAME else part
                for before, part in zip(("", *place), place, strict=False)
            )
            if kind in known or (mode == "unchecked" and kind[-1] not in {"expr_str", "in_spec"}):
                continue
            known.add(kind)
            for payload in PAYLOADS:
                record = getattr(archives, change)(whole[name], place, payload)
                outcome = attempt(whole | {name: record})
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                if outcome != "refused" and not payload.replace(".", "").isidentifier():
                    passed.add(f"{change} {'.'.join(map(str, place))}")
print(json.dumps({"seen": events, "ran": marker.exists(), "outcomes": outcomes,
                  "passed": sorted(passed)}))  # fmt: skip
