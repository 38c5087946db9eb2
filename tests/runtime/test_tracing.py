"""What X-Ray's daemon is sent where TRACING=on, by a handler that finds itself on Lambda."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import HANDLER

USER, ITEM = 918273645, 81726354
TRACE = "1-6b034d44-3f5b8a1c2d4e6f708192a3b4"
ASK = """
import json, sys
import handler
class Context:
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    def get_remaining_time_in_millis(self):
        return 10_000
for event in json.loads(sys.argv[1]):
    try:
        print(handler.lambda_handler(event, Context())["statusCode"], file=sys.stderr)
    except Exception as error:
        print(type(error).__name__, file=sys.stderr)
"""


def _event(body: object) -> dict[str, Any]:
    http = {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"}
    return {
        "version": "2.0",
        "rawPath": "/predict",
        "headers": {"authorization": "SECRET"},
        "requestContext": {"requestId": "r", "http": http},
        "body": json.dumps(body),
    }


EVENTS = [
    _event({"user_id": USER, "item_ids": [ITEM, 17], "context": {"device": "mobile"}}),
    _event({"user_id": USER, "item_ids": []}),
    {"user_id": USER, "SECRET": "SECRET"},
]


@pytest.fixture(scope="module")
def documents(demo_bundle: Path) -> list[dict[str, Any]]:
    """All that arrives, of a ranking, a refused request and an event that is not served."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        environ = {
            "PATH": os.environ["PATH"],
            "MODEL_URI": str(demo_bundle),
            "TRACING": "on",
            "LAMBDA_TASK_ROOT": "/var/task",
            "_X_AMZN_TRACE_ID": f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1",
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
        }
        process = subprocess.run(
            [sys.executable, "-c", ASK, json.dumps(EVENTS)],
            cwd=HANDLER.parent, env=environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        lines = [line for line in process.stderr.splitlines() if not line.startswith(" ")]
        assert lines == ["200", "422", "UnservedEventError"], process.stderr
        daemon.setblocking(False)
        documents_ = []
        while True:
            try:
                packet = daemon.recv(65_536)
            except BlockingIOError:
                break
            documents_.append(json.loads(packet.partition(b"\n")[2]))
    return documents_


def test_a_request_is_a_subsegment_with_its_stages(documents: list[dict[str, Any]]) -> None:
    names = [document["name"] for document in documents]
    assert names == ["features", "scoring", *["## lambda_handler"] * 3]
    features, scoring, ranked, *_ = documents
    assert features["parent_id"] == scoring["parent_id"] == ranked["id"]
    assert {document["parent_id"] for document in documents[2:]} == {"53995c3f42cd8ad8"}
    assert {document["trace_id"] for document in documents} == {TRACE}


def test_no_payload_and_no_user_is_traced(documents: list[dict[str, Any]]) -> None:
    sent = json.dumps(documents)
    for secret in (str(USER), str(ITEM), "SECRET", "mobile", "predictions"):
        assert secret not in sent
