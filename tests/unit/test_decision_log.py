import asyncio
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fakes
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.record import decision
from feedrank.decisions.sinks.files import DailyFiles

APPENDER = """
import sys
from pathlib import Path
from feedrank.decisions.sinks.files import DailyFiles
files, name = DailyFiles(Path(sys.argv[1])), sys.argv[2].encode()
for number in range(200):
    files.write(name * (50 * (number % 40) + 1) + b"\\n", "2026-11-22")
"""
# A disk that fills up takes a part of a write and says so by the count alone; so does a limit.
FULL_AFTER_100_BYTES = """
import resource, sys
from pathlib import Path
from feedrank.decisions.sinks.files import DailyFiles
files = DailyFiles(Path(sys.argv[1]))
files.write(b"a" * 50 + b"\\n", "2026-11-22")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    files.write(b"b" * 150 + b"\\n", "2026-11-22")
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
files.write(b"c" * 50 + b"\\n", "2026-11-22")
"""


def test_the_record_says_what_was_asked_and_what_was_answered() -> None:
    query = fakes.query(1, (10, 30, 20), device="mobile", email="ada@example.com")
    ranking = fakes.ranking(
        degraded=("model:layer",),
        unknown={"user": True, "items": [30]},
        context={"device": "mobile"},
        context_dropped=1,
    )
    call = fakes.call()._replace(correlation_id="JKJaXmPLvHcESHA=", trace_id="1-67891233-abcdef")
    assert fakes.recorded(query, ranking, call) == {
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
        "context": {"device": "mobile"},
        "context_dropped": 1,
        "feature_time": "2026-11-22T12:00:00.123000Z",
        "unknown": {"user": True, "items": [30]},
        "degraded": ["model:layer"],
        "latency_ms": 1.5,
    }


def test_duplicates_keep_their_own_ranks() -> None:
    ranking = fakes.ranking(scores=[0.5, 0.9, 0.5, 0.9], order=[1, 3, 0, 2])
    record = decision(fakes.query(1, (7, 8, 7, 8)), ranking, fakes.call())
    assert (record["item_ids"], record["ranks"]) == ([7, 8, 7, 8], [3, 1, 4, 2])


def test_the_record_is_one_line_on_standard_output_and_in_every_sink(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = fakes.KeptLines(), fakes.KeptLines()
    ranking = fakes.ranking(context={"note": "a\nb\u2028é"})
    query, call = fakes.query(), fakes.call()
    DecisionLog([first, second]).record(query, ranking, call)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.endswith("\n")
    assert json.loads(printed) == fakes.recorded(query, ranking, call)
    assert first.lines == second.lines == [(printed.encode(), "2026-11-22")]


def test_a_sink_that_refuses_costs_nothing_but_itself(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines
) -> None:
    kept = fakes.KeptLines()
    records = DecisionLog([fakes.FullDisk(), kept])
    assert records.record(fakes.query(), fakes.ranking(), fakes.call()) == 1
    (line,) = log()
    assert (line["level"], line["message"], line["sink"]) == (
        "ERROR",
        "decision record spilled",
        "FullDisk",
    )
    assert "No space left" in line["reason"]
    assert json.loads(capsys.readouterr().out) == json.loads(kept.lines[0][0])


def test_what_a_stream_took_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    stream, kept = fakes.FakeStream(), fakes.KeptLines()
    records = DecisionLog([kept], stream)
    assert records.record(fakes.query(), fakes.ranking(), fakes.call()) == 0
    assert asyncio.run(records.record_beside(fakes.query(), fakes.ranking(), fakes.call())) == 0
    assert (capsys.readouterr().out, stream.lines) == ("", [line for line, _ in kept.lines])
    assert len(kept.lines) == 2


def test_what_a_stream_refused_is_printed_and_counted(
    capsys: pytest.CaptureFixture[str], log: fakes.LogLines
) -> None:
    kept = fakes.KeptLines()
    records = DecisionLog([kept, fakes.FullDisk()], fakes.FakeStream(refuses=True))
    assert records.record(fakes.query(), fakes.ranking(), fakes.call()) == 2
    assert asyncio.run(records.record_beside(fakes.query(), fakes.ranking(), fakes.call())) == 2
    printed = capsys.readouterr().out.splitlines(keepends=True)
    assert [line.encode() for line in printed] == [line for line, _ in kept.lines]
    assert (len(printed), len(log())) == (2, 4)


def test_a_sinks_bug_is_not_hidden() -> None:
    class Buggy:
        def write(self, line: bytes, day: str) -> None:
            raise TypeError("wrong")

    with pytest.raises(TypeError):
        DecisionLog([Buggy()]).record(fakes.query(), fakes.ranking(), fakes.call())


def test_each_utc_day_has_its_own_file(tmp_path: Path) -> None:
    records = DecisionLog([DailyFiles(tmp_path / "predictions")])
    for timestamp in (
        "2026-11-22T23:59:59.999Z",
        "2026-11-23T00:00:00.000Z",
        "2026-11-22T00:00:00.000Z",
    ):
        records.record(fakes.query(), fakes.ranking(timestamp=timestamp), fakes.call())
    written = {
        path.name: [json.loads(line)["timestamp"] for line in path.read_text().splitlines()]
        for path in (tmp_path / "predictions").iterdir()
    }
    assert written == {
        "predictions_2026-11-22.jsonl": ["2026-11-22T23:59:59.999Z", "2026-11-22T00:00:00.000Z"],
        "predictions_2026-11-23.jsonl": ["2026-11-23T00:00:00.000Z"],
    }


def test_a_record_that_was_written_in_part_is_taken_away_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_AFTER_100_BYTES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "only a part of the record was written\n"
    written = (tmp_path / "predictions_2026-11-22.jsonl").read_bytes()
    assert written.splitlines() == [b"a" * 50, b"c" * 50]


def test_half_a_line_of_a_process_that_was_killed_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "predictions_2026-11-22.jsonl"
    file.write_bytes(b'{"half": ')
    DailyFiles(tmp_path).write(b"{}\n", "2026-11-22")
    DailyFiles(tmp_path).write(b"{}\n", "2026-11-22")
    assert file.read_bytes() == b'{"half": \n{}\n{}\n'


def test_a_file_that_somebody_keeps_locked_costs_a_record_its_place_there_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedrank.decisions.sinks.files.LOCK_TRIES", 2)
    file = tmp_path / "predictions_2026-11-22.jsonl"
    with file.open("wb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        with pytest.raises(BlockingIOError):
            DailyFiles(tmp_path).write(b"{}\n", "2026-11-22")
    DailyFiles(tmp_path).write(b"{}\n", "2026-11-22")
    assert file.read_bytes() == b"{}\n"


def test_a_file_that_is_always_replaced_is_a_refusal(
    tmp_path: Path, log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it looks where a mounted file system knows of no links."""
    records = DecisionLog([DailyFiles(tmp_path)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: SimpleNamespace(st_nlink=0))
        refused = records.record(fakes.query(), fakes.ranking(), fakes.call())
    assert refused == 1
    assert [line["reason"] for line in log()] == ["the file is replaced again and again"]


def test_a_folder_that_can_not_be_made_is_a_refusal(tmp_path: Path, log: fakes.LogLines) -> None:
    (tmp_path / "taken").touch()
    records = DecisionLog([DailyFiles(tmp_path / "taken")])
    assert records.record(fakes.query(), fakes.ranking(), fakes.call()) == 1
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
