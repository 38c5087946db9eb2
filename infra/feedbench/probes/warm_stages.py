"""Where the time of a warm request goes. Arguments: result, and options as JSON.

A stopwatch around each stage, on and off by turns: the whole is measured without it. What the
stages' medians leave of the whole's is what stands between them, roughly: medians do not add up.
"""

import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import handler
from feedbench.probes.lambda_context import LambdaContext

WARM_UP_CALLS = 200

result, options_json = sys.argv[1:]
options = json.loads(options_json)
stages: dict[str, list[tuple[str, str]]] = options["stages"]
events = cycle(json.loads(Path(options["events"]).read_bytes()))
context = LambdaContext()
watched: defaultdict[str, list[int]] = defaultdict(list)


def call(calls: int) -> list[int]:
    """Nanoseconds of each."""
    spent = []
    for event in islice(events, calls):
        begun = perf_counter_ns()
        handler.lambda_handler(event, context)
        spent.append(perf_counter_ns() - begun)
    return spent


def timed(run: Callable[..., Any] | None, spent: list[int]) -> Callable[..., Any]:
    assert run

    def stage(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 whatever it takes and gives
        begun = perf_counter_ns()
        given = run(*arguments, **named)
        spent.append(perf_counter_ns() - begun)
        return given

    return stage


class Stopwatch:
    """Around one callable or property."""

    def __init__(self, module: str, path: str) -> None:
        *outer, self._name = path.split(".")
        self._owner: Any = importlib.import_module(module)
        for each in outer:
            self._owner = getattr(self._owner, each)
        self._real = vars(self._owner)[self._name]
        spent = watched[f"{module}.{path}"]
        self._timed = (
            property(timed(self._real.fget, spent))
            if isinstance(self._real, property)
            else timed(self._real, spent)
        )

    def on(self) -> None:
        setattr(self._owner, self._name, self._timed)

    def off(self) -> None:
        setattr(self._owner, self._name, self._real)


watches = [Stopwatch(module, path) for each in stages.values() for module, path in each]
call(WARM_UP_CALLS)
whole: list[int] = []
for _ in range(options["rounds"]):
    whole += call(options["calls"])
    for watch in watches:
        watch.on()
    call(options["calls"])
    for watch in watches:
        watch.off()
medians = {
    stage: sum(float(np.median(watched[f"{module}.{path}"])) for module, path in parts)
    for stage, parts in stages.items()
}
Path(result).write_text(json.dumps({"whole_ns": float(np.median(whole)), "stages_ns": medians}))
