"""A Firehose that hangs costs a request what it has left, and no more."""

import asyncio
import base64
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

import fakes
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.sinks import firehose
from feedrank.decisions.sinks.firehose import CALLS, FAILURES, LEAST_S, FirehoseStream
from stack.faulty import FaultyFront

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
    call = fakes.call(budget_s=LEAST_S / 2)
    assert records.record(fakes.query(), fakes.ranking(), call) == 1
    assert _reasons(printed()) == ["no time is left to send it to decisions"]
    silent.setblocking(False)  # noqa: FBT003 the only way
    with pytest.raises(BlockingIOError):
        silent.accept()


@pytest.mark.usefixtures("silent")
def test_after_a_few_of_them_it_is_left_alone_for_a_while() -> None:
    stream = FirehoseStream("decisions", fakes.FakeClock())
    for _ in range(FAILURES):
        with pytest.raises(OSError, match="did not answer in the request's time"):
            stream.write(b"{}\n", perf_counter() + 2 * LEAST_S)
    with pytest.raises(OSError, match="left alone for a while"):
        stream.write(b"{}\n")


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch, silent: socket.socket) -> Iterator[FaultyFront]:
    """Throttles, and says so only when it is told to."""
    for limit in ("CONNECT_TIMEOUT_S", "READ_TIMEOUT_S", "LONGEST_S"):
        monkeypatch.setattr(firehose, limit, 30)  # a busy machine takes its time
    monkeypatch.setattr(firehose, "FREE_CALL_S", 1)
    with FaultyFront(usual="held") as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", front.url)
        yield front


async def _record_all(records: DecisionLog, ids: list[str], release: threading.Event) -> list[int]:
    """All at once. The front answers when all are through that it keeps no answer from."""
    refused: list[int] = []

    async def record(identifier: str) -> None:
        ranking = fakes.ranking(request_id=identifier)
        refused.append(await records.record_beside(fakes.query(), ranking, fakes.call()))
        if len(refused) == len(ids) - CALLS:
            release.set()

    async with asyncio.TaskGroup() as group:
        for identifier in ids:
            group.create_task(record(identifier))
    return refused


def test_of_a_hundred_at_once_most_wait_for_no_answer_and_none_is_lost(
    front: FaultyFront, printed: fakes.LogLines
) -> None:
    records = DecisionLog(stream=FirehoseStream("decisions"))
    ids = [f"r{number}" for number in range(100)]
    assert asyncio.run(_record_all(records, ids, front.release)) == [1] * 100
    lines = printed()
    assert sorted(line["request_id"] for line in lines if "record" in line) == sorted(ids)
    assert Counter(_reasons(lines)) == {
        f"{CALLS} calls to decisions are under way": 100 - CALLS,
        "decisions answers ServiceUnavailableException": CALLS,
    }
    assert len(front.ports) == CALLS


def test_what_comes_at_once_is_delivered_or_spilled_once(
    front: FaultyFront, printed: fakes.LogLines
) -> None:
    front.usual = "none"
    records = DecisionLog(stream=FirehoseStream("decisions"))
    ids = [f"r{number}" for number in range(100)]
    refused = asyncio.run(_record_all(records, ids, front.release))
    spilled = [line["request_id"] for line in printed() if "record" in line]
    sent = [json.loads(body)["Record"]["Data"] for body in front.taken]
    delivered = [json.loads(base64.b64decode(data))["request_id"] for data in sent]
    assert sorted(spilled + delivered) == sorted(ids)
    assert (len(spilled), len(refused)) == (sum(refused), 100)
    assert len(set(front.ports)) <= CALLS


def test_a_record_whose_request_is_ended_is_spilled(
    front: FaultyFront, printed: fakes.LogLines
) -> None:
    async def end_a_request() -> None:
        task = asyncio.create_task(
            records.record_beside(fakes.query(), fakes.ranking(), fakes.call())
        )
        await asyncio.to_thread(front.arrived.wait, 60)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    kept = fakes.KeptLines()
    records = DecisionLog([kept], FirehoseStream("decisions"))
    asyncio.run(end_a_request())
    assert [line["request_id"] for line in printed()] == ["req-1"]
    assert len(kept.lines) == 1


@pytest.mark.usefixtures("silent")
def test_an_error_that_is_none_of_botocores_is_a_failure_as_others(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As botocore raises it where a container's credentials were renewed, and are expired still."""

    def expired(**_: object) -> None:
        raise RuntimeError("the refreshed credentials are still expired")

    stream = FirehoseStream("decisions")
    monkeypatch.setattr(stream._firehose, "put_record", expired)
    records = DecisionLog(stream=stream)
    call = fakes.call()
    refused = [records.record(fakes.query(), fakes.ranking(), call) for _ in range(FAILURES + 1)]
    assert refused == [1] * len(refused)
    assert len(capsys.readouterr().out.splitlines()) == len(refused)
    reasons = ["decisions fails with RuntimeError"] * FAILURES
    alone = f"decisions failed {FAILURES} times, and is left alone for a while"
    assert _reasons(log()) == [*reasons, alone]


@pytest.mark.usefixtures("silent")
def test_a_thread_that_can_not_be_started_spills_the_record(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    records = DecisionLog(stream=FirehoseStream("decisions"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        refused = records.record(fakes.query(), fakes.ranking(), fakes.call())
    assert (refused, len(capsys.readouterr().out.splitlines())) == (1, 1)
    assert _reasons(log()) == ["firehose: can't start new thread"]
