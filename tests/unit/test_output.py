"""Standard output may break, fill up, be closed or have another encoding: lines are counted."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fakes
from feedrank.telemetry import metrics as telemetry
from feedrank.telemetry import output as output_module
from feedrank.telemetry.logging import configure
from feedrank.telemetry.metrics import log_request
from feedrank.telemetry.output import LogStream, Output

REQUESTS = """
import asyncio, json, sys
import handler
async def send_requests():
    app, sent = handler.app(), []
    async def receive():
        return {"type": "http.request", "body": b'{"user_id": 42, "item_ids": [17, 256, 3]}'}
    async def send(message):
        sent.append(message)
    for path, method in (("/predict", "POST"), ("/predict", "POST"), ("/metrics", "GET")):
        scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        await app(scope, receive, send)
    return [m["status"] for m in sent if "status" in m], json.loads(sent[-1]["body"])
PREPARE
from feedrank.telemetry.logging import logger
logger.warning("\\u00e9")
statuses, metrics = asyncio.run(send_requests())
print(statuses, metrics["lines_lost"], metrics["requests_total"], file=sys.stderr)
"""


class Raw(io.RawIOBase):
    """Accepts `room` bytes, `at_once` by each write, and then fails as a full disk does."""

    def __init__(self, room: int | None = None, at_once: int = 10_000) -> None:
        self.written = b""
        self.room, self.at_once = room, at_once

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = min(len(data), self.at_once)
        if self.room is not None:
            if not self.room:
                raise OSError(28, "No space left on device")
            size = min(size, self.room)
            self.room -= size
        self.written += bytes(data[:size])
        return size


def _standard_output(monkeypatch: pytest.MonkeyPatch, raw: Raw) -> None:
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)


def test_a_line_is_one_write_whatever_the_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []

    class Kept(Raw):
        def write(self, data: Any) -> int:
            writes.append(bytes(data))
            return len(data)

    _standard_output(monkeypatch, Kept())
    assert Output().write("é\n".encode())
    assert writes == ["é\n".encode()]


def test_a_short_write_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Raw(at_once=3)
    _standard_output(monkeypatch, raw)
    assert Output().write(b"0123456789\n")
    assert raw.written == b"0123456789\n"


def test_a_part_of_a_line_is_not_joined_to_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw, output = Raw(room=4), Output()
    _standard_output(monkeypatch, raw)
    assert not output.write(b"first\n")
    assert not output.write(b"second\n")
    raw.room = None
    assert output.write(b"third\n")
    assert output.write(b"fourth\n")
    assert raw.written == b"firs\nthird\nfourth\n"
    assert output.lost == 2


def test_lost_lines_are_a_metric_of_the_next_request_that_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(fakes.settings())
    raw, output = Raw(room=0), Output()
    _standard_output(monkeypatch, raw)
    monkeypatch.setattr(telemetry, "output", output)
    log_request({}, {"Latency": 1.0})
    log_request({}, {"Latency": 1.0})
    raw.room = None
    log_request({}, {"Latency": 1.0})
    log_request({}, {"Latency": 1.0})
    first, second = map(json.loads, raw.written.splitlines())
    (directive,) = first["_aws"]["CloudWatchMetrics"]
    assert first["LinesLost"] == 2
    assert {"Name": "LinesLost", "Unit": "Count"} in directive["Metrics"]
    assert "LinesLost" not in second


def test_a_character_that_can_not_be_encoded_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Raw()
    _standard_output(monkeypatch, raw)
    monkeypatch.setattr(output_module, "output", Output())
    assert LogStream().write("\ud800é\n") == 3
    assert raw.written == "\\ud800é\n".encode()


def _results(bundle: Path, prepare: str = "", stdout: Any = subprocess.DEVNULL, **env: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", REQUESTS.replace("PREPARE", prepare)],
        cwd=fakes.HANDLER.parent,
        env={"PATH": os.environ["PATH"], "MODEL_URI": str(bundle), **env},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert process.returncode in {0, 120}, process.stderr  # 120: a flush at exit failed
    return process.stderr.splitlines()[0]


def test_a_closed_pipe_fails_neither_init_nor_a_request(demo_bundle: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    results = _results(demo_bundle, stdout=writer)
    os.close(writer)
    # Model loaded, init, a warning, then a record and a request's line twice.
    assert results == "[200, 200, 200] 7 2"


def test_a_full_disk_fails_no_request(demo_bundle: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        assert _results(demo_bundle, stdout=full) == "[200, 200, 200] 7 2"


@pytest.mark.parametrize("how", ["sys.stdout.close()", "sys.stdout = None"])
def test_a_closed_standard_output_fails_no_request(demo_bundle: Path, how: str) -> None:
    assert _results(demo_bundle, how) == "[200, 200, 200] 5 2"


def test_an_ascii_standard_output_loses_nothing(demo_bundle: Path) -> None:
    service = (
        "import feedrank.telemetry.metrics; feedrank.telemetry.logging.service.name = chr(0xE9)"
    )
    results = _results(demo_bundle, service, PYTHONIOENCODING="ascii")
    assert results == "[200, 200, 200] 0 2"
