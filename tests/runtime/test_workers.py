"""Workers of a web server: each has to load the model by itself."""

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2

from fakes import HANDLER
from feedops.local.processes import LOCALHOST, free_port
from feedrank.model.slot import FORKED
from uvicorns import with_held_stream

REQUEST = {"user_id": 42, "item_ids": [17, 256, 3]}
LONGEST_S = 60
REQUESTS = 12
STARTED = b"Application startup complete"


def test_at_a_sigterm_two_workers_end_their_requests_and_each_record_is_kept(
    demo_bundle: Path, tmp_path: Path
) -> None:
    with (
        with_held_stream(demo_bundle, tmp_path / "stdout", "--workers", "2") as (front, server),
        ThreadPoolExecutor(REQUESTS) as pool,
    ):
        front.faults.extend(["none"] * (REQUESTS // 2))
        stderr = server.process.stderr
        assert stderr
        started = 0
        while started < 2:
            started += STARTED in stderr.readline()
            assert server.process.poll() is None
        url = f"{server.url}/predict"
        requests = [
            pool.submit(httpx2.post, url, json=REQUEST, timeout=LONGEST_S) for _ in range(REQUESTS)
        ]
        while len(front.ports) < REQUESTS:
            assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LONGEST_S) == 0
        responses = [each.result(LONGEST_S) for each in requests]
    assert [response.status_code for response in responses] == [200] * REQUESTS
    ids = sorted(response.json()["request_id"] for response in responses)
    printed = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
    spilled = [line["request_id"] for line in printed if line.get("record") == "decision"]
    data = [b64decode(json.loads(body)["Record"]["Data"]) for body in front.bodies]
    streamed = [json.loads(line)["request_id"] for line in data]
    assert (len(streamed), len(spilled)) == (REQUESTS // 2, REQUESTS // 2)
    assert sorted(streamed + spilled) == ids


@contextmanager
def gunicorn(bundle: Path, output: Path, *flags: str) -> Iterator[str]:
    """The address of a server that forks its workers."""
    address = f"{LOCALHOST}:{free_port()}"
    command = ["gunicorn", "--worker-class", "asgi", "--bind", address, *flags, "handler:app()"]
    with (
        output.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=HANDLER.parent,
            env={"PATH": os.environ["PATH"], "HOME": str(output.parent), "MODEL_URI": str(bundle)},
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            while "ASGI server listening" not in output.read_text():
                assert process.poll() is None, output.read_text()
            yield f"http://{address}"
        finally:
            process.terminate()


def test_workers_that_fork_before_the_model_is_loaded_serve(
    demo_bundle: Path, tmp_path: Path
) -> None:
    with gunicorn(demo_bundle, tmp_path / "output", "--workers", "1") as url:
        assert httpx2.post(f"{url}/predict", json=REQUEST).status_code == 200


def test_workers_that_fork_after_it_refuse_and_name_the_flag(
    demo_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with gunicorn(demo_bundle, output, "--workers", "1", "--preload") as url:
        paths = ("/live", "/ready", "/health")
        statuses = [httpx2.get(url + path).status_code for path in paths]
        statuses.append(httpx2.post(f"{url}/predict", json=REQUEST).status_code)
    assert statuses == [200, 503, 503, 503]
    lines = [json.loads(line) for line in output.read_text().splitlines() if line[0] == "{"]
    refusal, *requests = [line["reason"] for line in lines if "reason" in line]
    assert refusal == FORKED
    assert requests == [FORKED]
    assert "--preload" in FORKED
