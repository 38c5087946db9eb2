"""What the container images' server bounds: heads, waits, connections, and its own end."""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from uvicorns import Server, uvicorn, with_held_stream

REQUEST = {"user_id": 42, "item_ids": [17, 256, 3]}
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
LONGEST_S = 60
SOON = """
server.CHECK_S = 0.05
server.HEAD_S = server.BODY_S = server.UPLOAD_DRAIN_S = 0.5
"""
HANGING_THREAD = "from threading import Event, Thread; Thread(target=Event().wait).start()"
HANGING_LOOP = """
from threading import Event
from feedrank.decisions.log import DecisionLog
assert DecisionLog.record
DecisionLog.record = lambda *given: (print("hangs", flush=True), Event().wait())
server.DRAIN_S, server.EXIT_S = 0, 0.1
"""


def connect(server: Server, sent: bytes = b"") -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=LONGEST_S)
    connection.sendall(sent)
    return connection


def status(connection: socket.socket) -> str:
    """Of the answer, once the server has closed the connection; nothing where it only did that."""
    received = b""
    try:
        while more := connection.recv(65_536):
            received += more
    except ConnectionResetError:
        pass
    return received[9:12].decode()


def peak_mb(server: Server) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1_024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture(scope="module")
def impatient(demo_bundle: Path) -> Iterator[Server]:
    with uvicorn(demo_bundle, before=SOON) as server:
        yield server


@pytest.mark.parametrize(
    "before_it", [b"GET /health HTTP/1.1\r\nx: ", b"GET /", HEAD + b"transfer-encoding: chunked\r\n"
                  b"\r\n0\r\nx: "]
)  # fmt: skip
def test_a_head_without_end_is_refused_and_takes_no_memory(
    impatient: Server, before_it: bytes
) -> None:
    before_mb = peak_mb(impatient)
    with connect(impatient, before_it) as connection:
        try:
            for _ in range(300):
                connection.sendall(b"a" * 1_000_000)
        except (ConnectionResetError, BrokenPipeError):
            assert peak_mb(impatient) - before_mb < 20
        else:
            pytest.fail("it took 300 MB")
    assert httpx2.get(f"{impatient.url}/health").status_code == 200


@pytest.mark.parametrize(
    ("sent", "response"),
    [
        (b"GET /health HTTP/1.1\r\nx: " + b"a" * 66_000 + b"\r\n\r\n", "431"),
        (b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n", "431"),
        (b"GET /health HTTP/1.1\r\nx: " + b"a" * 65_000 + b"\r\nconnection: close\r\n\r\n", "200"),
        (b"nonsense\r\n\r\n", "400"),
        (b"GET /health HTTP/1.1\r\n\r\n" * 100, ""),
        (b"", ""),
        (b"\r\n", "408"),
        (b"GET /health HTTP/1.1\r\n", "408"),
        (HEAD, "408"),
        (HEAD + b"\r\n", "408"),
        (HEAD + b"\r\n{", "408"),
        (HEAD.replace(b"100", b"9999999") + b"\r\n" + b" " * 70_000, "413"),
        (b"GET /health HTTP/1.1\r\n\r\nGET", "200"),
    ],
)
def test_every_request_ends(impatient: Server, sent: bytes, response: str) -> None:
    with connect(impatient, sent) as connection:
        assert status(connection) == response


def test_past_the_limit_it_says_503_and_past_its_double_nothing(demo_bundle: Path) -> None:
    with uvicorn(demo_bundle, "--limit-concurrency", "3") as server:
        connections = [connect(server)]
        assert httpx2.get(f"{server.url}/").status_code == 200
        connections.append(connect(server))
        assert httpx2.get(f"{server.url}/").status_code == 503
        assert httpx2.get(f"{server.url}/live").status_code == 200  # else a busy one is ended
        assert httpx2.get(f"{server.url}/").status_code == 503
        connections += [connect(server) for _ in range(4)]
        with connect(server) as one_more:
            assert status(one_more) == ""
        for each in connections:
            each.close()


def test_at_a_sigterm_requests_end_their_records_are_kept_and_nothing_hangs_on(
    demo_bundle: Path, tmp_path: Path
) -> None:
    before = SOON.replace("server.BODY_S", "server.BODY_S_") + HANGING_THREAD
    with (
        with_held_stream(demo_bundle, tmp_path / "stdout", before=before) as (front, server),
        ThreadPoolExecutor() as pool,
        connect(server, HEAD + b"\r\n{") as stalled,
        connect(server) as silent,
    ):
        ranking = pool.submit(httpx2.post, f"{server.url}/predict", json=REQUEST, timeout=LONGEST_S)
        assert front.arrived.wait(LONGEST_S)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LONGEST_S) == 0
        response = ranking.result(LONGEST_S)
        assert (response.status_code, status(stalled), status(silent)) == (200, "408", "")
        lines = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
    records = [line["request_id"] for line in lines if "record" in line]
    assert records == [json.loads(response.content)["request_id"]]


def test_a_drain_that_hangs_is_cut_off(demo_bundle: Path, tmp_path: Path) -> None:
    with (
        (tmp_path / "stdout").open("w+b") as stdout,
        uvicorn(demo_bundle, stdout=stdout, before=HANGING_LOOP) as server,
        connect(server, request(REQUEST)) as connection,
    ):
        while b"hangs" not in (tmp_path / "stdout").read_bytes():
            assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LONGEST_S) == 1
        assert status(connection) == ""


def test_a_hundred_at_once_at_a_stream_that_says_503_late_are_answered_and_kept(
    demo_bundle: Path, tmp_path: Path
) -> None:
    with (
        with_held_stream(demo_bundle, tmp_path / "stdout") as (_, server),
        ThreadPoolExecutor(100) as pool,
    ):
        url = f"{server.url}/predict"
        requests = [
            pool.submit(httpx2.post, url, json=REQUEST, timeout=LONGEST_S) for _ in range(100)
        ]
        responses = [each.result(LONGEST_S) for each in requests]
    lines = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
    assert {response.status_code for response in responses} == {200}
    ids = sorted(json.loads(response.content)["request_id"] for response in responses)
    assert sorted(line["request_id"] for line in lines if "record" in line) == ids
    assert sum(line.get("DecisionsSpilled", 0) for line in lines) == 100


def request(body: object) -> bytes:
    text = json.dumps(body).encode()
    return HEAD.replace(b"100", b"%d" % len(text)) + b"\r\n" + text
