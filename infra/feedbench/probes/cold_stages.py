"""A cold start with a stopwatch. Arguments: result, event, time of the spawn, stages as JSON.

One clock runs, and always for exactly one thing: what is innermost of the imports and stages under
way. So the parts add up to the whole. A stage is a callable, by module and name; it is wrapped
as soon as its module has been imported, before anybody can take it from there.
"""

import functools
import importlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from types import ModuleType
from typing import Any


class LambdaContext:
    function_name = "feedrank"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank"
    memory_limit_in_mb = "1769"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 10_000


OURS = {"handler", "feedrank"}


class Stopwatch:
    def __init__(self, started_ns: int) -> None:
        self.spent_ns: defaultdict[str, int] = defaultdict(int)
        self._open = ["interpreter"]
        self._since_ns = started_ns

    def enter(self, name: str) -> None:
        self._book()
        self._open.append(name)

    def leave(self) -> None:
        self._book()
        self._open.pop()

    def _book(self) -> None:
        now_ns = time.monotonic_ns()
        self.spent_ns[self._open[-1]] += now_ns - self._since_ns
        self._since_ns = now_ns


result, events, spawned_ns, stages_json = sys.argv[1:]
stages: dict[str, dict[str, str]] = json.loads(stages_json)
watch = Stopwatch(int(spawned_ns))


def package_of(module: str) -> str:
    top = module.partition(".")[0]
    if top in OURS:
        return "import feedrank"
    return "import standard library" if top in sys.stdlib_module_names else f"import {top}"


def timed(function: Callable[..., object], stage: str) -> Callable[..., object]:
    @functools.wraps(function)
    def run(*args: object, **options: object) -> object:
        watch.enter(stage)
        try:
            return function(*args, **options)
        finally:
            watch.leave()

    return run


def wrap_stages(module: ModuleType) -> None:
    for path, stage in stages.get(module.__name__, {}).items():
        owner_name, _, name = path.rpartition(".")
        owner = getattr(module, owner_name, None) if owner_name else module
        found = vars(owner).get(name) if owner else None
        if isinstance(found, classmethod):
            setattr(owner, name, classmethod(timed(found.__func__, stage)))
        elif found:
            setattr(owner, name, timed(found, stage))


bootstrap: Any = importlib._bootstrap  # noqa: SLF001 no public hook
find_and_load = bootstrap._find_and_load  # noqa: SLF001


def timed_find_and_load(name: str, import_: object) -> ModuleType:
    watch.enter(package_of(name))
    try:
        module: ModuleType = find_and_load(name, import_)
    finally:
        watch.leave()
    if name in stages:
        wrap_stages(module)
    return module


bootstrap._find_and_load = timed_find_and_load  # noqa: SLF001
watch.enter("stopwatch itself")
with open(events) as file:  # noqa: PTH123
    event = json.load(file)[0]
watch.leave()
watch.enter("handler, the rest")
handler = importlib.import_module("handler")
watch.leave()
watch.enter("first request")
answer = handler.lambda_handler(event, LambdaContext())
watch.leave()
if answer["statusCode"] != 200:  # noqa: PLR2004
    sys.exit(f"no ranking: {answer}")
with open(result, "w") as file:  # noqa: PTH123
    json.dump(watch.spent_ns, file)
