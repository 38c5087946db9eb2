"""Decision records sent to a Firehose that throttles, drops and delays, with moto behind it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

import fakes
from feedrank import threads
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.sinks import bounded, firehose
from feedrank.decisions.sinks.firehose import FirehoseStream
from feedrank.ranking.pipeline import Ranker
from feedrank.ranking.scorer import InlineScorer
from stack.faulty import Fault, FaultyFront

Spilled = Callable[[], list[str]]
LIMITS = [
    (firehose, "CONNECT_TIMEOUT_S"),
    (firehose, "READ_TIMEOUT_S"),
    (bounded, "MAX_WRITE_S"),
    (threads, "MAX_QUEUE_S"),
]


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyFront]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for module, limit in LIMITS:
        monkeypatch.setattr(module, limit, 30)  # a busy machine is slow
    with _aws() as moto, FaultyFront(moto) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        yield front


@contextmanager
def _aws() -> Iterator[str]:
    """The address of a moto server with the stream and its bucket, which are deleted afterwards."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    bucket = boto3.resource("s3", endpoint_url=url).Bucket("decisions")
    firehose = boto3.client("firehose", endpoint_url=url)
    try:
        bucket.create()
        firehose.create_delivery_stream(
            DeliveryStreamName="decisions",
            ExtendedS3DestinationConfiguration={
                "RoleARN": "arn:aws:iam::123456789012:role/delivery",
                "BucketARN": "arn:aws:s3:::decisions",
            },
        )
        yield url
        firehose.delete_delivery_stream(DeliveryStreamName="decisions")
        bucket.objects.delete()
        bucket.delete()
    finally:
        server.stop()


@pytest.fixture
def spilled(capsys: pytest.CaptureFixture[str]) -> Spilled:
    """Returns the ids of the records on standard output since the last call."""
    return lambda: _ids(capsys.readouterr().out)


def _ids(lines: str) -> list[str]:
    assert not lines or lines.endswith("\n")
    return [json.loads(line)["request_id"] for line in lines.splitlines()]


def _delivered(front: FaultyFront) -> list[str]:
    s3 = boto3.client("s3", endpoint_url=front.upstream)
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="decisions").get("Contents", [])]
    bodies = [s3.get_object(Bucket="decisions", Key=key)["Body"].read().decode() for key in keys]
    return sorted(identifier for body in bodies for identifier in _ids(body))


def _record(records: DecisionLog, *ids: str, left_s: float = 60) -> list[int]:
    """The number of sinks that refused each record."""
    return [
        fakes.record(records, fakes.ranking(call=fakes.call(left_s)._replace(request_id=each)))
        for each in ids
    ]


def test_a_record_reaches_s3_and_standard_output_stays_empty(
    front: FaultyFront, spilled: Spilled
) -> None:
    assert _record(DecisionLog([FirehoseStream("decisions")]), "a", "b") == [0, 0]
    assert (_delivered(front), spilled()) == (["a", "b"], [])
    assert len(set(front.ports)) == 1  # one connection


def test_a_throttled_record_is_spilled_and_the_next_one_is_sent(
    front: FaultyFront, spilled: Spilled, log: fakes.LogLines
) -> None:
    front.faults.extend(["throttled", "none"])
    records = DecisionLog([FirehoseStream("decisions")])
    assert _record(records, "a", "b") == [1, 0]
    assert (_delivered(front), spilled()) == (["b"], ["a"])
    (line,) = log()
    assert (line["message"], line["sink"], line["reason"]) == (
        "decision record spilled",
        "FirehoseStream",
        "decisions responds with ServiceUnavailableException",
    )


@pytest.mark.parametrize(("fault", "left_s"), [("throttled", 60), ("dropped", 60), ("late", 1)])
def test_after_three_failures_in_a_row_one_record_per_pause_tries_the_stream(
    fault: Fault, left_s: float, front: FaultyFront, spilled: Spilled, log: fakes.LogLines
) -> None:
    """Otherwise every request would wait for the stream."""
    clock = fakes.FakeClock()
    front.faults.extend([fault, fault, "none", *[fault] * threads.MAX_FAILURES])
    records = DecisionLog([FirehoseStream("decisions")], clock=clock)
    assert _record(records, *"abcdef", left_s=left_s) == [1, 1, 0, 1, 1, 1]
    assert _record(records, "g", "h") == [1, 1]
    assert (spilled(), len(front.ports)) == ([*"abdefgh"], 6)

    front.faults.append("throttled")
    clock.now_s += threads.PAUSE_S
    assert _record(records, "i", "j") == [1, 1]
    assert (spilled(), len(front.ports)) == (["i", "j"], 7)

    clock.now_s += threads.PAUSE_S
    assert _record(records, "k", "l") == [0, 0]
    assert (spilled(), len(front.ports)) == ([], 9)


@pytest.mark.parametrize("limit", LIMITS[1:3])
def test_a_response_is_awaited_no_longer_than_the_limit(
    limit: tuple[ModuleType, str],
    front: FaultyFront,
    spilled: Spilled,
    log: fakes.LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "MAX_QUEUE_S", 0.1)
    monkeypatch.setattr(*limit, 0.1)
    front.faults.append("late")
    assert _record(DecisionLog([FirehoseStream("decisions")]), "a") == [1]
    assert spilled() == ["a"]


def test_no_record_is_ever_lost(front: FaultyFront, spilled: Spilled, log: fakes.LogLines) -> None:
    """Delivery is at least once: a record that timed out is in both places, with one request id."""
    clock = fakes.FakeClock()
    faults: list[Fault] = ["none", "throttled", "dropped", "none", "late", "throttled", "none"]
    front.faults.extend(faults)
    records = DecisionLog([FirehoseStream("decisions")], clock=clock)
    ids = [f"r{number}" for number in range(10)]
    refused = 0
    for each in ids:
        late = list(front.faults)[:1] == ["late"]
        refused += sum(_record(records, each, left_s=1 if late else 60))
        clock.now_s += 3
    out = spilled()
    delivered = _delivered(front)
    assert sorted({*out, *delivered}) == ids
    assert len(out) == refused


def test_a_deleted_stream_spills(front: FaultyFront, spilled: Spilled, log: fakes.LogLines) -> None:
    assert _record(DecisionLog([FirehoseStream("deleted")]), "a") == [1]
    assert spilled() == ["a"]


def test_an_unreachable_address_spills(
    front: FaultyFront, spilled: Spilled, log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert _record(DecisionLog([FirehoseStream("decisions")]), "a") == [1]
    assert spilled() == ["a"]


def test_a_spill_is_counted_in_its_request(
    front: FaultyFront, capsys: pytest.CaptureFixture[str], log: fakes.LogLines
) -> None:
    front.faults.append("throttled")
    ranker = Ranker(
        fakes.slot(fakes.model()), InlineScorer(), DecisionLog([FirehoseStream("decisions")])
    )
    ranked: Any = [asyncio.run(ranker.rank(fakes.query(), fakes.call())) for _ in range(2)]
    assert [ranking.spilled for ranking in ranked] == [1, 0]


def test_the_handler_sends_to_the_stream_of_the_setting(
    front: FaultyFront, spilled: Spilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variables, sinks in (({"DECISION_STREAM": "decisions"}, ["FirehoseStream"]), ({}, [])):
        with fakes.container(MODEL_URI="/nowhere", **variables) as handler:
            assert [sink.name for sink in handler.decision_log._sinks] == sinks
