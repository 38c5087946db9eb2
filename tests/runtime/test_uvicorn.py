"""The app under uvicorn, as the container images and `feedrank serve --front uvicorn` run it."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Semaphore, Thread

import httpx2
import pytest

from feedrank.http.routes import ROUTES
from uvicorns import uvicorn

REQUEST = {"user_id": 42, "item_ids": [17, 256, 3]}


def test_behind_a_proxy_that_takes_a_prefix_away_every_route_is_served(demo_bundle: Path) -> None:
    with uvicorn(demo_bundle, "--root-path", "/x") as server:
        responses = {
            route.path: httpx2.request(route.method, server.url + route.path, json=REQUEST)
            for route in ROUTES
        }
    assert {path: response.status_code for path, response in responses.items()} == {
        route.path: 200 for route in ROUTES
    }
    assert json.loads(responses["/openapi.json"].content)["servers"] == [{"url": "/x"}]
    assert json.loads(responses["/"].content)["docs"] == "/x/docs"


def test_a_bundle_that_is_overwritten_or_cut_short_is_served_as_it_was(
    demo_bundle: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))
    snapshot = directory / "serving/features.safetensors"
    with uvicorn(directory, MODEL_CACHE_DIR=str(tmp_path / "cache")) as server:

        def predictions() -> object:
            response = httpx2.post(f"{server.url}/predict", json=REQUEST)
            return response.status_code, response.json()["predictions"]

        before = predictions()
        with snapshot.open("r+b") as file:
            file.write(bytes(snapshot.stat().st_size))
        overwritten = predictions()
        os.truncate(snapshot, 0)
        assert [overwritten, predictions()] == [before, before]


def test_two_workers_on_one_pipe_tear_no_records(demo_bundle: Path) -> None:
    """Long ones, of a hundred unknown items: a pipe takes 4,096 bytes at once for certain."""
    ids = [2**62 + number for number in range(100)]
    reader, writer = os.pipe()
    flags = ("--workers", "2", "--no-access-log")
    with (
        os.fdopen(reader, "rb") as lines,
        uvicorn(demo_bundle, *flags, stdout=writer) as server,
        ThreadPoolExecutor(9) as pool,
    ):
        os.close(writer)
        read = pool.submit(list, lines)
        assert server.process.stderr
        while b"startup complete" not in server.process.stderr.readline():
            assert server.process.poll() is None

        def ask(user: int) -> int:
            body = {"user_id": user, "item_ids": ids}
            return httpx2.post(f"{server.url}/predict", json=body).status_code

        try:
            statuses = list(pool.map(ask, range(200)))
        finally:
            server.process.terminate()  # its workers, too, which ends the pipe
        records = [json.loads(line) for line in read.result(30)]
    written = [record["user_id"] for record in records if record.get("record") == "decision"]
    assert (statuses, sorted(written)) == ([200] * 200, list(range(200)))


class HangingS3:
    """Takes every connection and never answers, until it is closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._listener.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "MODEL_LOAD_SECONDS": "0.2",
            "MODEL_RETRY_SECONDS": "0.001",
        }
        self._taken: list[socket.socket] = []
        self._arrived = Semaphore(0)
        Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with suppress(OSError):  # closed
            while True:
                self._taken.append(self._listener.accept()[0])
                self._arrived.release()

    def hears(self) -> None:
        """Waits for one more connection."""
        assert self._arrived.acquire(timeout=30)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._taken:
            connection.close()


@pytest.fixture
def hanging_s3() -> Iterator[HangingS3]:
    s3 = HangingS3()
    yield s3
    with suppress(OSError):
        s3.close()


def test_while_the_fallback_serves_nobody_waits_for_an_s3_that_hangs(
    demo_bundle: Path, hanging_s3: HangingS3
) -> None:
    variables = hanging_s3.variables | {
        "MODEL_FALLBACK": "layer",
        "MODEL_LAYER_DIR": str(demo_bundle),
        "REQUEST_TIMEOUT_MS": "1000",  # less than a connection's time limit
    }
    with uvicorn("s3://models/feed", **variables) as server:
        hanging_s3.hears()  # at init
        responses = [httpx2.post(f"{server.url}/predict", json=REQUEST)]  # starts the retry
        hanging_s3.hears()
        responses += [httpx2.post(f"{server.url}/predict", json=REQUEST) for _ in range(20)]
        health = httpx2.get(f"{server.url}/health")
    assert [response.status_code for response in responses] == [200] * 21
    assert all(
        json.loads(response.content)["degraded"] == ["model:layer"] for response in responses
    )
    assert json.loads(health.content)["status"] == "degraded"


def test_a_request_that_waits_for_a_model_keeps_nobody_else_waiting(hanging_s3: HangingS3) -> None:
    variables = hanging_s3.variables | {"REQUEST_TIMEOUT_MS": "60000", "MODEL_LOAD_SECONDS": "0.5"}
    with (
        uvicorn("s3://models/feed", **variables) as server,
        ThreadPoolExecutor() as pool,
    ):
        hanging_s3.hears()
        waiting = pool.submit(httpx2.post, f"{server.url}/predict", json=REQUEST, timeout=60)
        hanging_s3.hears()  # the request has begun another load, and waits for it
        about = httpx2.get(f"{server.url}/")
        assert not waiting.done()
        hanging_s3.close()
        response = waiting.result(60)
    assert about.status_code == 200
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
