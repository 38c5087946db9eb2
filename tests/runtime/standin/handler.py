"""A function whose requests say what it does, to test the local Lambda.

Standard library only, so that it starts quickly. `GET /?do=...` selects what it does; the response
to any other request is the event itself.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

if os.environ.get("STANDIN_INIT") == "fail":
    raise RuntimeError("the stand-in was told to fail at init")
print("stand-in initialised", flush=True)


def lambda_handler(event: dict[str, Any], context: Any) -> Any:
    query = event.get("queryStringParameters") or {}
    match query.get("do"):
        case "sleep":
            time.sleep(float(query["seconds"]))
        case "raise":
            raise ValueError("the stand-in was told to raise")
        case "exit":
            os._exit(3)
        case "kill_emulator":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        case "hang":
            signal.pause()
        case "big":
            return {"statusCode": 200, "body": "x" * int(query["bytes"])}
        case "environment":
            return dict(os.environ)
        case "process":
            return {
                "pid": os.getpid(),
                "emulator": os.getppid(),
                "cwd": str(Path.cwd()),
                "memory_mb": context.memory_limit_in_mb,
            }
        case "answer":
            return json.loads(event["body"])
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(event),
    }
