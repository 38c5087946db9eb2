"""A Firehose that hangs costs a request what it has left, and no more."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

import fakes
from feedrank.decision_log import FIREHOSE_LEAST_S, DecisionLog, FirehoseStream

ASKED = json.dumps({"user_id": 42, "item_ids": [17, 256, 3]})


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name, value in {
            "AWS_ENDPOINT_URL_FIREHOSE": address,
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


def _reasons(lines: list[dict[str, Any]]) -> list[str]:
    return [line["reason"] for line in lines if line.get("message") == "decision record spilled"]


@pytest.mark.usefixtures("silent")
def test_a_hanging_stream_is_left_at_the_requests_deadline(
    demo_bundle: Path, printed: fakes.LogLines
) -> None:
    http = {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"}
    event = {
        "version": "2.0",
        "rawPath": "/predict",
        "headers": {},
        "requestContext": {"requestId": "r", "http": http},
        "body": ASKED,
    }
    with fakes.container(MODEL_URI=str(demo_bundle), DECISION_STREAM="decisions") as module:
        # Less than the 0.3 and 0.7 s that the client itself would wait.
        answer = module.lambda_handler(event, fakes.LambdaContext(remaining_ms=700))
    lines = printed()
    assert answer["statusCode"] == 200
    assert _reasons(lines) == ["decisions did not answer in the request's time"]
    assert [line["user_id"] for line in lines if "record" in line] == [42]
    assert lines[-1]["DecisionsSpilled"] == 1


def test_where_too_little_time_is_left_no_call_is_begun(
    silent: socket.socket, printed: fakes.LogLines
) -> None:
    records = DecisionLog(stream=FirehoseStream("decisions"))
    call = fakes.call(budget_s=FIREHOSE_LEAST_S / 2)
    assert records.record(fakes.query(), fakes.ranking(), call) == 1
    assert _reasons(printed()) == ["no time is left to send it to decisions"]
    silent.setblocking(False)  # noqa: FBT003 the only way
    with pytest.raises(BlockingIOError):
        silent.accept()


@pytest.mark.usefixtures("silent")
def test_after_that_it_is_left_alone_for_a_while() -> None:
    clock = fakes.FakeClock()
    stream = FirehoseStream("decisions", clock)
    with pytest.raises(OSError, match="did not answer in the request's time"):
        stream.write(b"{}\n", "2026-11-22", perf_counter() + 2 * FIREHOSE_LEAST_S)
    with pytest.raises(OSError, match="left alone for a while"):
        stream.write(b"{}\n", "2026-11-22")
