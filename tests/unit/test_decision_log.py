"""The decision record, the log's spill policy, and the sink of daily files."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import fakes
from feedrank import threads
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.record import decision
from feedrank.decisions.sinks import DecisionRecord, bounded
from feedrank.decisions.sinks.files import DailyFiles

APPENDER = """
import sys
from pathlib import Path
from feedrank.decisions.sinks import DecisionRecord
from feedrank.decisions.sinks.files import DailyFiles
files, name = DailyFiles(Path(sys.argv[1])), sys.argv[2].encode()
for number in range(200):
    files.write(DecisionRecord(name * (50 * (number % 40) + 1) + b"\\n", "2026-11-22", 0.0))
"""
# A full disk takes a part of a write and returns its size; so does a limit on files.
FULL_AFTER_100_BYTES = """
import resource, sys
from pathlib import Path
from feedrank.decisions.sinks import DecisionRecord
from feedrank.decisions.sinks.files import DailyFiles
files = DailyFiles(Path(sys.argv[1]))
def write(line):
    files.write(DecisionRecord(line + b"\\n", "2026-11-22", 0.0))
write(b"a" * 50)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    write(b"b" * 150)
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(b"c" * 50)
"""
LINE = DecisionRecord(b"{}\n", "2026-11-22", 0.0)


def _record(log: DecisionLog, **changes: str) -> int:
    return fakes.record(log, fakes.ranking(**changes))


def test_the_record_holds_the_request_and_the_ranking() -> None:
    ranking = fakes.ranking(
        query=fakes.query(1, (10, 30, 20), device="mobile", email="ada@example.com"),
        call=fakes.call()._replace(correlation_id="JKJaXmPLvHcESHA=", trace_id="1-67891233-abcdef"),
        stages=("diversity",),
        degraded=("model:layer",),
        unknown={"user": True, "items": [30]},
        context={"device": "mobile"},
        context_dropped=1,
    )
    assert fakes.recorded(ranking) == {
        "record": "decision",
        "timestamp": "2026-11-22T12:00:00.123Z",
        "request_id": "req-1",
        "correlation_id": "JKJaXmPLvHcESHA=",
        "trace_id": "1-67891233-abcdef",
        "model_version": "feed_ranker-3",
        "model_digest": "dddddddddddd",
        "user_id": 1,
        "user_hash": None,
        "item_ids": [10, 30, 20],
        "scores": [0.01, 0.03, 0.02],
        "ranks": [3, 1, 2],
        "stages": ["diversity"],
        "context": {"device": "mobile"},
        "context_dropped": 1,
        "features": None,
        "feature_time": "2026-11-22T12:00:00.123000Z",
        "unknown": {"user": True, "items": [30]},
        "outputs": None,
        "row_sources": None,
        "degraded": ["model:layer"],
        "latency_ms": 1.5,
    }


def test_each_duplicate_has_its_own_rank() -> None:
    query = fakes.query(1, (7, 8, 7, 8))
    record = decision(fakes.ranking(query=query, scores=[0.5, 0.9, 0.5, 0.9], order=[1, 3, 0, 2]))
    assert (record["item_ids"], record["ranks"]) == ([7, 8, 7, 8], [3, 1, 4, 2])


def test_the_record_is_one_line_on_standard_output_and_in_every_sink(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = fakes.MemorySink(), fakes.MemorySink()
    ranking = fakes.ranking(context={"note": "a\nb\u2028é"})
    assert fakes.record(DecisionLog([first, second]), ranking) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.endswith("\n")
    assert json.loads(printed) == fakes.recorded(ranking)
    assert first.lines == second.lines == [(printed.encode(), "2026-11-22")]


def test_a_refusal_is_logged_and_counted_and_other_sinks_get_the_record(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines
) -> None:
    sink = fakes.MemorySink()
    records = DecisionLog([fakes.FullDisk(), sink])
    assert _record(records) == 1
    (line,) = log()
    assert (line["level"], line["message"], line["sink"]) == (
        "ERROR",
        "decision record spilled",
        "FullDisk",
    )
    assert "No space left" in line["reason"]
    assert json.loads(capsys.readouterr().out) == json.loads(sink.lines[0][0])


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_sink_may_replace_standard_output(
    capsys: pytest.CaptureFixture[str], *, is_alone: bool
) -> None:
    stream, sink = fakes.FakeStream(), fakes.MemorySink()
    ranking = fakes.ranking(call=fakes.call(is_alone=is_alone))
    recorded = DecisionLog([sink, stream]).record(ranking)
    assert asyncio.run(recorded) == 0
    assert capsys.readouterr().out == ""
    assert stream.lines == [line for line, _ in sink.lines]
    assert len(sink.lines) == 1


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("stream", [fakes.FakeStream(), fakes.FakeStream(refuses=True)])
def test_a_record_that_any_sink_refuses_is_printed_once(
    capsys: pytest.CaptureFixture[str],
    log: fakes.LogLines,
    stream: fakes.FakeStream,
    *,
    is_alone: bool,
) -> None:
    sink = fakes.MemorySink()
    ranking = fakes.ranking(call=fakes.call(is_alone=is_alone))
    records = DecisionLog([stream, sink, fakes.FullDisk()])
    assert asyncio.run(records.record(ranking)) == 1 + stream.refuses
    assert capsys.readouterr().out.encode() == sink.lines[0][0]
    assert len(log()) == 1 + stream.refuses


def test_a_sinks_bug_fails_no_request_and_is_named_without_its_text(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines
) -> None:
    class Buggy(fakes.FakeStream):
        def write(self, record: DecisionRecord) -> None:
            raise UnicodeError(record.line.decode())

    assert _record(DecisionLog([Buggy()])) == 1
    assert json.loads(capsys.readouterr().out)["request_id"] == "req-1"
    (line,) = log()
    reason, _, number = line["reason"].partition(":")
    assert (line["sink"], reason) == ("Buggy", "UnicodeError in test_decision_log.py")
    assert int(number) > 0
    assert "user_id" not in str(line)


def test_the_event_loop_goes_on_while_a_file_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedrank.decisions.sinks.files.LOCK_TRIES", 10_000)
    monkeypatch.setattr("feedrank.decisions.sinks.bounded.MAX_WRITE_S", 30)
    file = tmp_path / "predictions_2026-11-22.jsonl"

    async def main() -> int:
        loop, waits = asyncio.get_running_loop(), asyncio.Event()
        pause = time.sleep

        def signal_and_pause(seconds: float) -> None:
            loop.call_soon_threadsafe(waits.set)
            pause(seconds)

        monkeypatch.setattr("feedrank.decisions.sinks.files.time.sleep", signal_and_pause)
        log, ranking = (
            DecisionLog([DailyFiles(tmp_path)]),
            fakes.ranking(call=fakes.call(is_alone=False)),
        )
        with file.open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            recorded = asyncio.create_task(log.record(ranking))
            await waits.wait()
        return await recorded

    assert asyncio.run(main()) == 0
    assert file.read_bytes().count(b"\n") == 1


def test_each_utc_day_has_its_own_file(tmp_path: Path) -> None:
    records = DecisionLog([DailyFiles(tmp_path / "predictions")])
    for timestamp in (
        "2026-11-22T23:59:59.999Z",
        "2026-11-23T00:00:00.000Z",
        "2026-11-22T00:00:00.000Z",
    ):
        assert _record(records, timestamp=timestamp) == 0
    written = {
        path.name: [json.loads(line)["timestamp"] for line in path.read_text().splitlines()]
        for path in (tmp_path / "predictions").iterdir()
    }
    assert written == {
        "predictions_2026-11-22.jsonl": ["2026-11-22T23:59:59.999Z", "2026-11-22T00:00:00.000Z"],
        "predictions_2026-11-23.jsonl": ["2026-11-23T00:00:00.000Z"],
    }


def test_a_part_of_a_record_is_removed_again(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", FULL_AFTER_100_BYTES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == "only a part of the record was written\n"
    written = (tmp_path / "predictions_2026-11-22.jsonl").read_bytes()
    assert written.splitlines() == [b"a" * 50, b"c" * 50]


def test_half_a_line_of_a_killed_process_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "predictions_2026-11-22.jsonl"
    file.write_bytes(b'{"half": ')
    DailyFiles(tmp_path).write(LINE)
    DailyFiles(tmp_path).write(LINE)
    assert file.read_bytes() == b'{"half": \n{}\n{}\n'


def test_a_locked_file_refuses_a_record_and_takes_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedrank.decisions.sinks.files.LOCK_TRIES", 2)
    file = tmp_path / "predictions_2026-11-22.jsonl"
    with file.open("wb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        with pytest.raises(BlockingIOError):
            DailyFiles(tmp_path).write(LINE)
    DailyFiles(tmp_path).write(LINE)
    assert file.read_bytes() == b"{}\n"


def test_a_file_that_is_always_replaced_refuses_the_record(
    tmp_path: Path, log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a mounted file system that counts no links."""
    records = DecisionLog([DailyFiles(tmp_path)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: SimpleNamespace(st_nlink=0))
        refusals = _record(records)
    assert refusals == 1
    assert [line["reason"] for line in log()] == ["the file is replaced again and again"]


def test_a_directory_that_can_not_be_made_refuses_the_record(
    tmp_path: Path, log: fakes.LogLines
) -> None:
    (tmp_path / "file").touch()
    assert _record(DecisionLog([DailyFiles(tmp_path / "file")])) == 1
    assert log()[0]["sink"] == "DailyFiles"


def test_several_processes_append_whole_lines(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    writers = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), name]) for name in names
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    lines = (tmp_path / "predictions_2026-11-22.jsonl").read_text().splitlines()
    expected = [name * (50 * (number % 40) + 1) for name in names for number in range(200)]
    assert sorted(lines) == sorted(expected)


class Hanging(fakes.MemorySink):
    max_writes = 1

    def __init__(self) -> None:
        super().__init__()
        self.released, self.written = threading.Event(), threading.Event()

    def write(self, record: DecisionRecord) -> None:
        self.released.wait()
        super().write(record)
        self.written.set()


def test_a_sink_that_hangs_with_all_its_threads_is_skipped(
    printed: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "MAX_WRITE_S", 0.05)
    monkeypatch.setattr(threads, "MAX_QUEUE_S", 0.01)
    sink, clock = Hanging(), fakes.FakeClock()
    records = DecisionLog([sink], clock=clock)
    assert [fakes.record(records, fakes.ranking()) for _ in range(4)] == [1] * 4
    reasons = [line["reason"] for line in printed() if "reason" in line]
    skipped = f"failed 3 times in a row: skipped for {threads.PAUSE_S:g} s"
    busy = "1 writes are under way"
    assert reasons == [threads.TIMED_OUT, busy, busy, skipped]
    sink.released.set()
    assert sink.written.wait(30)
    monkeypatch.setattr(bounded, "MAX_WRITE_S", 30)
    monkeypatch.setattr(threads, "MAX_QUEUE_S", 30)
    clock.now_s += threads.PAUSE_S
    assert fakes.record(records, fakes.ranking()) == 0


def test_a_sink_that_can_not_connect_after_a_restore_fails_no_request(
    printed: fakes.LogLines,
) -> None:
    class Unconnected(fakes.FullDisk):
        def connect(self) -> None:
            raise ZeroDivisionError("SECRET")

    records = DecisionLog([Unconnected()])
    records.restart()
    assert fakes.record(records, fakes.ranking()) == 1
    lines = [line for line in printed() if line.get("level") == "ERROR"]
    messages = [(line["message"], line["sink"]) for line in lines]
    assert messages == [
        ("decision sink can't connect", "Unconnected"),
        ("decision record spilled", "Unconnected"),
    ]
    assert lines[0]["reason"].startswith("ZeroDivisionError in test_decision_log.py:")
