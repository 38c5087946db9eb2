"""Imports modules in a fresh process, and calls the handler of the last one if there is an event.

Arguments: where the time of the end goes, the event's file or nothing, modules. Nothing is imported
here but what the modules need anyway.
"""

import sys
import time
from importlib import import_module


class LambdaContext:
    """What Lambda hands to a handler beside the event."""

    function_name = "feedrank"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank"
    memory_limit_in_mb = "1769"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 10_000


if __name__ == "__main__":
    result, events, *modules = sys.argv[1:]
    for name in modules:
        module = import_module(name)
    if events:
        import json

        with open(events) as file:  # noqa: PTH123 pathlib would be an import more
            response = module.lambda_handler(json.load(file)[0], LambdaContext())
        if response["statusCode"] != 200:  # noqa: PLR2004
            sys.exit(f"no ranking: {response}")
    finished_ns = time.monotonic_ns()
    with open(result, "w") as file:  # noqa: PTH123
        file.write(str(finished_ns))
