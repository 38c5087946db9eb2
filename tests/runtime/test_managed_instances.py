"""The function as Lambda Managed Instances run it: one runtime client, a process for each request.

https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances-python-runtime.html
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

from feedops.workspace import EVENTS, FUNCTION
from stack.transform import resolved, template

PROCESSES = 2
LONGEST_S = 60
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank:live"


class RuntimeApi(ThreadingHTTPServer):
    """Gives each process that waits one event, once as many wait as Lambda would send at once."""

    daemon_threads = True

    def __init__(self, events: list[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events = {f"request-{number}": event for number, event in enumerate(events)}
        self.waiting = Barrier(PROCESSES, timeout=LONGEST_S)
        self.responses: dict[str, Any] = {}
        self.errors: list[str] = []
        self.all_answered, self.is_over = Event(), Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: RuntimeApi

    def do_GET(self) -> None:
        if not self.server.events:
            self.server.is_over.wait()
            return
        self.server.waiting.wait()
        request_id, event = self.server.events.popitem()
        self.send_response(200)
        for name, value in {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(1_000 * int(time.time() + LONGEST_S)),
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Content-Type": "application/json",
            "Content-Length": str(len(event)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        *_, request_id, kind = self.path.split("/")
        if kind == "response":
            self.server.responses[request_id] = json.loads(body)
        else:
            self.server.errors.append(body.decode())
        if len(self.server.responses) == PROCESSES or self.server.errors:
            self.server.all_answered.set()
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def runtime(api: RuntimeApi, output: Path, **variables: str) -> Iterator[None]:
    """The image's command."""
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_LAMBDA_MAX_CONCURRENCY": str(PROCESSES),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances",
        "AWS_LAMBDA_FUNCTION_NAME": "feedrank",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048",
        "AWS_DEFAULT_REGION": "eu-west-1",
        **variables,
    }
    command = [sys.executable, "-m", "awslambdaric", "handler.lambda_handler"]
    Thread(target=api.serve_forever, daemon=True).start()
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=FUNCTION, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its processes, too
            process.wait()
            api.is_over.set()
            api.shutdown()
            api.server_close()


def test_each_concurrent_request_has_a_process_that_loads_the_model(
    demo_bundle: Path, tmp_path: Path
) -> None:
    parameters = {
        "ModelUri": f"s3://b/m/sha256-{'ab' * 32}",
        "ImageDigest": f"sha256:{'ef' * 32}",
    }
    function = resolved(template("infra/images/gpu.yaml"), **parameters)["Resources"]["Function"]
    variables = function["Properties"]["Environment"]["Variables"]
    assert variables["ENGINE_DEVICE"] == "cuda"  # there is none here
    variables |= {
        "MODEL_URI": str(demo_bundle), "MODEL_DIGEST": "", "MODEL_ENGINE": "onnx",
        "ENGINE_DEVICE": "cpu",
    }  # fmt: skip
    api = RuntimeApi([(EVENTS / "predict.json").read_bytes()] * PROCESSES)
    with runtime(api, tmp_path / "output", **variables):
        assert api.all_answered.wait(LONGEST_S)
    assert api.errors == []
    answers = {name: json.loads(answer["body"]) for name, answer in api.responses.items()}
    assert [answer["statusCode"] for answer in api.responses.values()] == [200] * PROCESSES
    first, *others = [answer["predictions"] for answer in answers.values()]
    assert others == [first] * (PROCESSES - 1)
    assert {answer["request_id"] for answer in answers.values()} == set(answers)
    lines = [json.loads(line) for line in (tmp_path / "output").read_text().splitlines() if line]
    inits = [line["init_type"] for line in lines if "InitDuration" in line]
    assert inits == ["lambda-managed-instances"] * PROCESSES
    records = [line for line in lines if line.get("record") == "decision"]
    assert len(records) == PROCESSES
