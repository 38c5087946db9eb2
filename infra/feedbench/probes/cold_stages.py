"""A cold start with a stopwatch. Arguments: result, event, stages as JSON, time of the spawn.

One clock runs, and always for exactly one thing: the innermost of the imports and stages under way.
So the parts add up to the whole. A stage is a callable, by module and name; it is wrapped as soon
as its module has been imported, before anybody can take it from there.
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

from feedbench.probes.cold import LambdaContext

OURS = {"handler", "feedrank"}
result, events, stages_json, spawned_ns = sys.argv[1:]
stages: dict[str, dict[str, str]] = json.loads(stages_json)
spent_ns: defaultdict[str, int] = defaultdict(int)
under_way = ["interpreter"]
since_ns = int(spawned_ns)


def book() -> None:
    """The time since the last booking, for the innermost."""
    global since_ns  # noqa: PLW0603 one clock
    now_ns = time.monotonic_ns()
    spent_ns[under_way[-1]] += now_ns - since_ns
    since_ns = now_ns


class Stage:
    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        book()
        under_way.append(self._name)

    def __exit__(self, *_error: object) -> None:
        book()
        under_way.pop()


def package_of(module: str) -> str:
    top = module.partition(".")[0]
    if top in OURS:
        return "import feedrank"
    return "import standard library" if top in sys.stdlib_module_names else f"import {top}"


def timed(function: Callable[..., object], name: str) -> Callable[..., object]:
    @functools.wraps(function)
    def run(*args: object, **options: object) -> object:
        with Stage(name):
            return function(*args, **options)

    return run


def wrap_stages(module: ModuleType) -> None:
    for path, name in stages.get(module.__name__, {}).items():
        owner_name, _, attribute = path.rpartition(".")
        owner = getattr(module, owner_name, None) if owner_name else module
        function = vars(owner).get(attribute) if owner else None
        if isinstance(function, classmethod):
            setattr(owner, attribute, classmethod(timed(function.__func__, name)))
        elif function:
            setattr(owner, attribute, timed(function, name))


bootstrap: Any = importlib._bootstrap  # noqa: SLF001 no public hook
find_and_load = bootstrap._find_and_load  # noqa: SLF001


def timed_find_and_load(name: str, import_: object) -> ModuleType:
    with Stage(package_of(name)):
        module: ModuleType = find_and_load(name, import_)
    if name in stages:
        wrap_stages(module)
    return module


bootstrap._find_and_load = timed_find_and_load  # noqa: SLF001
with Stage("stopwatch itself"), open(events) as file:  # noqa: PTH123
    event = json.load(file)[0]
with Stage("handler, the rest"):
    handler = importlib.import_module("handler")
with Stage("first request"):
    response = handler.lambda_handler(event, LambdaContext())
if response["statusCode"] != 200:  # noqa: PLR2004
    sys.exit(f"no ranking: {response}")
with open(result, "w") as file:  # noqa: PTH123
    json.dump(spent_ns, file)
