"""Imports modules in a fresh process, and calls the handler of the last one if there is an event.

Arguments: where the times go, the event's file or nothing, stages as JSON or nothing, modules. A
stage is a callable, by module and name: its module is imported first and the callable wrapped,
before anybody else can take it from there. Nothing is imported here but what the modules need.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

MARKER = "imports of the function"  # on standard error, after what the interpreter imports
spent_ns: dict[str, int] = {}


class LambdaContext:
    """What Lambda hands to a handler beside the event."""

    function_name = "feedrank"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank"
    memory_limit_in_mb = "1769"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 10_000


def import_(name: str) -> Any:  # noqa: ANN401 a module
    __import__(name)  # Python's own times leave out what importlib.import_module imports
    return sys.modules[name]


def timed(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 whatever it takes and returns
        start_ns = time.monotonic_ns()
        try:
            return function(*arguments, **options)
        finally:
            spent_ns[stage] = spent_ns.get(stage, 0) + time.monotonic_ns() - start_ns

    return run


def wrap(module: str, path: str, stage: str) -> None:
    owner_name, _, name = path.rpartition(".")
    owner = import_(module)
    owner = getattr(owner, owner_name) if owner_name else owner
    function = vars(owner)[name]
    if isinstance(function, classmethod):
        setattr(owner, name, classmethod(timed(function.__func__, stage)))
    else:
        setattr(owner, name, timed(function, stage))


if __name__ == "__main__":
    started_ns = time.monotonic_ns()
    result, events, stages, *modules = sys.argv[1:]
    if stages:
        import json

        sys.stderr.write(f"{MARKER}\n")
        for owner_module, paths in json.loads(stages).items():
            for path, stage in paths.items():
                wrap(owner_module, path, stage)
    for name in modules:
        module = import_(name)
    if events:
        import json

        with open(events) as file:  # noqa: PTH123 pathlib would be an import more
            event = json.load(file)[0]
        response = timed(module.lambda_handler, "first request")(event, LambdaContext())
        if response["statusCode"] != 200:  # noqa: PLR2004
            sys.exit(f"no ranking: {response}")
    finished_ns = time.monotonic_ns()
    with open(result, "w") as file:  # noqa: PTH123
        print(started_ns, finished_ns, file=file)
        print(*(f"{stage}\t{ns}" for stage, ns in spent_ns.items()), sep="\n", file=file)
