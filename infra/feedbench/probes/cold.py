"""Imports modules in a fresh process, and calls the handler of the last one if there is an event.

Arguments: where the times go, the event's file or nothing, stages as JSON, modules. A stage is a
list of callables: their modules are imported first and they are wrapped, before anybody else can
take them from there. Nothing is imported here but what the modules need.
"""

import json
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace  # json imports it, too
from typing import Any

MARKER = "imports of the function"  # on standard error, after what the interpreter imports
COROUTINE = 0x80  # inspect.CO_COROUTINE


# What Lambda hands to a handler beside the event.
context = SimpleNamespace(
    function_name="feedrank",
    function_version="$LATEST",
    invoked_function_arn="arn:aws:lambda:eu-west-1:123456789012:function:feedrank",
    memory_limit_in_mb="1769",
    aws_request_id="c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
    get_remaining_time_in_millis=lambda: 10_000,
)


def import_(name: str) -> Any:  # noqa: ANN401 a module
    __import__(name)  # Python's own times leave out what importlib.import_module imports
    return sys.modules[name]


def timed(function: Callable[..., Any], spent_ns: list[int]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 whatever it takes and returns
        start_ns = time.perf_counter_ns()
        value = function(*arguments, **options)
        spent_ns.append(time.perf_counter_ns() - start_ns)
        return value

    async def run_to_its_end(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        start_ns = time.perf_counter_ns()
        value = await function(*arguments, **options)
        spent_ns.append(time.perf_counter_ns() - start_ns)
        return value

    code = getattr(function, "__code__", None)
    return run_to_its_end if code and code.co_flags & COROUTINE else run


def watched(path: str, spent_ns: list[int]) -> tuple[Any, str, Any]:
    """A callable's or property's owner, its name there, and itself with a stopwatch. `path` is
    module:class and name, or module and name."""
    place, name = path.split()
    module, _, class_ = place.partition(":")
    owner = getattr(import_(module), class_) if class_ else import_(module)
    real = vars(owner)[name]
    function = getattr(real, "__func__", getattr(real, "fget", real))  # of what binds it
    watched_function = timed(function, spent_ns)
    return owner, name, watched_function if function is real else type(real)(watched_function)


if __name__ == "__main__":
    started_ns = time.monotonic_ns()
    result, events, stages, *modules = sys.argv[1:]
    spent_ns: dict[str, list[int]] = {"first request": []}
    sys.stderr.write(f"{MARKER}\n")
    for stage, paths in json.loads(stages).items():
        for each in paths:
            setattr(*watched(each, spent_ns.setdefault(stage, [])))
    for name in modules:
        module = import_(name)
    if events:
        with open(events) as file:  # noqa: PTH123 pathlib would be an import more
            event = json.load(file)[0]
        response = timed(module.lambda_handler, spent_ns["first request"])(event, context)
        if response["statusCode"] != 200:  # noqa: PLR2004
            sys.exit(f"no ranking: {response}")
    finished_ns = time.monotonic_ns()
    with open(result, "w") as file:  # noqa: PTH123
        json.dump({"times_ns": [started_ns, finished_ns], "spent_ns": spent_ns}, file)
