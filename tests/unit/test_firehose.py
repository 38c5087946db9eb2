"""A Firehose stream that hangs or fails costs a request the time that it has left, and no more."""

import asyncio
import base64
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import fakes
from feedrank import threads
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.sinks import bounded, firehose
from feedrank.decisions.sinks.bounded import TOO_LATE
from feedrank.decisions.sinks.firehose import FirehoseStream
from feedrank.threads import MAX_FAILURES, TIMED_OUT
from stack.faulty import FaultyFront

BODY = json.dumps({"user_id": 42, "item_ids": [17, 256, 3]})
CALLS, MIN_WRITE_S = FirehoseStream.max_writes, FirehoseStream.min_write_s
SKIPPED = f"failed {MAX_FAILURES} times in a row: skipped for {threads.PAUSE_S:g} s"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that accepts connections and never responds."""
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
def test_a_hanging_stream_is_given_up_at_the_requests_deadline(
    demo_bundle: Path, printed: fakes.LogLines
) -> None:
    http = {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"}
    event = {
        "version": "2.0",
        "rawPath": "/predict",
        "headers": {},
        "requestContext": {"requestId": "r", "http": http},
        "body": BODY,
    }
    with fakes.container(MODEL_URI=str(demo_bundle), DECISION_STREAM="decisions") as module:
        # Less than the 0.3 and 0.7 s that the client itself would wait.
        response = module.lambda_handler(event, fakes.LambdaContext(remaining_ms=700))
    lines = printed()
    assert response["statusCode"] == 200
    assert _reasons(lines) == [TIMED_OUT]
    assert [line["user_id"] for line in lines if "record" in line] == [42]
    assert lines[-1]["DecisionsSpilled"] == 1


def test_with_too_little_time_left_no_call_is_begun(
    silent: socket.socket, printed: fakes.LogLines
) -> None:
    records = DecisionLog([FirehoseStream("decisions")])
    ranking = fakes.ranking(call=fakes.call(budget_s=MIN_WRITE_S / 2))
    assert fakes.record(records, ranking) == 1
    assert _reasons(printed()) == [TOO_LATE]
    silent.setblocking(False)
    with pytest.raises(BlockingIOError):
        silent.accept()


@pytest.mark.usefixtures("silent")
def test_after_a_few_timeouts_the_stream_is_skipped_for_a_while(printed: fakes.LogLines) -> None:
    records = DecisionLog([FirehoseStream("decisions")], clock=fakes.FakeClock())
    for _ in range(MAX_FAILURES):
        fakes.record(records, fakes.ranking(call=fakes.call(2 * MIN_WRITE_S)))
    fakes.record(records, fakes.ranking())
    assert _reasons(printed()) == [*[TIMED_OUT] * MAX_FAILURES, SKIPPED]


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch, silent: socket.socket) -> Iterator[FaultyFront]:
    """Throttles, and responds only when it is released."""
    for limit in ("CONNECT_TIMEOUT_S", "READ_TIMEOUT_S"):
        monkeypatch.setattr(firehose, limit, 30)  # a busy machine takes its time
    monkeypatch.setattr(bounded, "MAX_WRITE_S", 30)
    monkeypatch.setattr(threads, "MAX_QUEUE_S", 1)
    with FaultyFront(usual="held") as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", front.url)
        yield front


async def _record_all(records: DecisionLog, ids: list[str], release: threading.Event) -> list[int]:
    """All at once. The front responds when only those records are left that wait for it."""
    refusals: list[int] = []

    async def record(identifier: str) -> None:
        call = fakes.call(is_alone=False)._replace(request_id=identifier)
        refusals.append(await records.record(fakes.ranking(call=call)))
        if len(refusals) == len(ids) - CALLS:
            release.set()

    async with asyncio.TaskGroup() as group:
        for identifier in ids:
            group.create_task(record(identifier))
    return refusals


def test_of_a_hundred_records_at_once_most_wait_for_no_response_and_none_is_lost(
    front: FaultyFront, printed: fakes.LogLines
) -> None:
    records = DecisionLog([FirehoseStream("decisions")])
    ids = [f"r{number}" for number in range(100)]
    assert asyncio.run(_record_all(records, ids, front.release)) == [1] * 100
    lines = printed()
    assert sorted(line["request_id"] for line in lines if "record" in line) == sorted(ids)
    assert Counter(_reasons(lines)) == {
        f"{CALLS} writes are under way": 100 - CALLS,
        "decisions responds with ServiceUnavailableException": CALLS,
    }
    assert len(front.ports) == CALLS


def test_records_at_once_are_each_delivered_or_spilled_once(
    front: FaultyFront, printed: fakes.LogLines
) -> None:
    front.usual = "none"
    records = DecisionLog([FirehoseStream("decisions")])
    ids = [f"r{number}" for number in range(100)]
    refusals = asyncio.run(_record_all(records, ids, front.release))
    spilled = [line["request_id"] for line in printed() if "record" in line]
    sent = [json.loads(body)["Record"]["Data"] for body in front.bodies]
    delivered = [json.loads(base64.b64decode(data))["request_id"] for data in sent]
    assert sorted(spilled + delivered) == sorted(ids)
    assert (len(spilled), len(refusals)) == (sum(refusals), 100)
    assert len(set(front.ports)) <= CALLS


def test_the_record_of_a_cancelled_request_is_spilled(
    front: FaultyFront, printed: fakes.LogLines
) -> None:
    async def cancel_a_request() -> None:
        ranking = fakes.ranking(call=fakes.call(is_alone=False))
        task = asyncio.create_task(records.record(ranking))
        await asyncio.to_thread(front.arrived.wait, 60)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    sink = fakes.MemorySink()
    records = DecisionLog([sink, FirehoseStream("decisions")])
    asyncio.run(cancel_a_request())
    assert [line["request_id"] for line in printed()] == ["req-1"]
    assert len(sink.lines) == 1


@pytest.mark.usefixtures("silent")
def test_any_other_error_is_a_failure_too(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 raises it where a profile's renewed credentials have expired."""

    def expired(*_: object) -> None:
        raise RuntimeError("the refreshed credentials are still expired")

    stream = FirehoseStream("decisions")
    monkeypatch.setattr(stream._firehose, "call", expired)
    records = DecisionLog([stream])
    refusals = [fakes.record(records, fakes.ranking()) for _ in range(MAX_FAILURES + 1)]
    assert refusals == [1] * len(refusals)
    assert len(capsys.readouterr().out.splitlines()) == len(refusals)
    *reasons, last = _reasons(log())
    assert {reason.partition(":")[0] for reason in reasons} == {"RuntimeError in test_firehose.py"}
    assert (len(reasons), last) == (MAX_FAILURES, SKIPPED)


@pytest.mark.usefixtures("silent")
def test_a_thread_that_can_not_be_started_spills_the_record(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    records = DecisionLog([FirehoseStream("decisions")])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        refusals = fakes.record(records, fakes.ranking())
    assert (refusals, len(capsys.readouterr().out.splitlines())) == (1, 1)
    assert _reasons(log()) == ["can't start new thread"]
