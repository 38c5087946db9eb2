"""A cold start with a stopwatch around its stages. Arguments: result, event, stages as JSON.

A stage is a callable, by module and name. Its module is imported first and the callable wrapped,
before anybody else can take it from there. What imports take is printed by Python itself, under
`-X importtime`: after the line MARKER, those that aren't the interpreter's own.
"""

import functools
import importlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable

MARKER = "imports of the function"

if __name__ == "__main__":
    started_ns = time.monotonic_ns()
    sys.stderr.write(f"{MARKER}\n")

spent_ns: defaultdict[str, int] = defaultdict(int)


def timed(function: Callable[..., object], stage: str) -> Callable[..., object]:
    @functools.wraps(function)
    def run(*arguments: object, **options: object) -> object:
        start_ns = time.monotonic_ns()
        try:
            return function(*arguments, **options)
        finally:
            spent_ns[stage] += time.monotonic_ns() - start_ns

    return run


def wrap(module: str, path: str, stage: str) -> None:
    owner_name, _, name = path.rpartition(".")
    owner = importlib.import_module(module)
    owner = getattr(owner, owner_name) if owner_name else owner
    function = vars(owner)[name]
    if isinstance(function, classmethod):
        setattr(owner, name, classmethod(timed(function.__func__, stage)))
    else:
        setattr(owner, name, timed(function, stage))


if __name__ == "__main__":
    from feedbench.probes.cold import LambdaContext

    result, events, stages = sys.argv[1:]
    for module, paths in json.loads(stages).items():
        for path, stage in paths.items():
            wrap(module, path, stage)
    with open(events) as file:  # noqa: PTH123 pathlib would be an import more
        event = json.load(file)[0]
    handler = importlib.import_module("handler")
    response = timed(handler.lambda_handler, "first request")(event, LambdaContext())
    finished_ns = time.monotonic_ns()
    if response["statusCode"] != 200:  # type: ignore[index]  # noqa: PLR2004
        sys.exit(f"no ranking: {response}")
    with open(result, "w") as file:  # noqa: PTH123
        json.dump({"started": started_ns, "finished": finished_ns, "stages": spent_ns}, file)
