"""Fresh process to first ranked answer. Arguments: result, event, the handler's module.

Nothing is imported here but what the handler needs anyway.
"""

import json
import sys
import time
from importlib import import_module


class LambdaContext:
    function_name = "feedrank"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank"
    memory_limit_in_mb = "1769"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 10_000


result, events, module = sys.argv[1:]
with open(events) as file:  # noqa: PTH123 pathlib would be an import more
    event = json.load(file)[0]
answer = import_module(module).lambda_handler(event, LambdaContext())
finished_ns = time.monotonic_ns()
if answer["statusCode"] != 200:  # noqa: PLR2004
    sys.exit(f"no ranking: {answer}")
with open(result, "w") as file:  # noqa: PTH123
    file.write(str(finished_ns))
