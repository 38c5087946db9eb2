"""A rehearsal of SnapStart: a process after its init is the snapshot, and each fork of it is a
container restored from that snapshot."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

import pytest

import fakes
from feedops.workspace import FUNCTION
from feedrank import snapstart
from feedrank.errors import BundleError, ModelUnavailableError
from feedrank.http.lambda_adapter import Adapter
from feedrank.model.inference import Inference, watchdog
from feedrank.model.slot import ModelSlot
from stack.faulty import FaultyFront

RESTORES = 3
# Runs the hooks as Lambda's runtime client does, and prints the state of each restored container.
REHEARSAL = """
import asyncio, json, os, random, ssl, sys, time
import numpy as np
import snapshot_restore_py as hooks
import handler

class Context:
    function_name = "feedrank"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn"
    aws_request_id = ""
    def get_remaining_time_in_millis(self):
        return 10_000

def state():
    return {
        "pid": os.getpid(),
        "random": random.random(),
        "numpy": float(np.random.random()),
        "ssl": ssl.RAND_bytes(8).hex(),
        "inherits_loop": asyncio.get_event_loop() is inherited_loop,
        "uptime_is_new": handler.stats.uptime_s < aged_s,
        "model": handler.slot.model().manifest.digest,
    }

event = json.load(open(sys.argv[1]))
handler.lambda_handler(event, Context())  # opens a connection, which is then part of the snapshot
for function, arguments, options in reversed(hooks.get_before_snapshot()):
    function(*arguments, **options)
time.sleep(0.2)  # the snapshot's age
aged_s = 0.1
inherited_loop = asyncio.get_event_loop()
np.random.seed(1)
for number in range(int(sys.argv[2])):
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        print("RESTORED", open(reading).read(), flush=True)
        assert os.waitpid(child, 0)[1] == 0
        continue
    random.seed(1)  # Python reseeds after a fork, but not after a restore
    if sys.argv[3] == "hooks":
        for function, arguments, options in hooks.get_after_restore():
            function(*arguments, **options)
    context = Context()
    context.aws_request_id = f"request-{number}"
    response = handler.lambda_handler(event, context)
    report = state() | {"status": response["statusCode"]}
    report["request_id"] = json.loads(response["body"])["request_id"]
    os.write(writing, json.dumps(report).encode())
    os._exit(0)
"""


STORE = """
import http.client, os
from urllib.parse import urlsplit

class RemoteStore:
    waits = False

    def __init__(self, snapshot):
        self.snapshot = snapshot
        self.connect()

    def connect(self):
        self.connection = http.client.HTTPConnection(urlsplit(os.environ["STORE_URL"]).netloc)

    async def fetch(self, query, deadline_s):
        self.connection.request("POST", "/", b"{}")
        assert self.connection.getresponse().read()
        return await self.snapshot.fetch(query, deadline_s)

STORES = [lambda snapshot, spec: RemoteStore(snapshot)]
"""


def _rehearse(
    directory: Path, bundle: Path, firehose: FaultyFront, remote: FaultyFront, *, hooks: bool
) -> list[dict[str, Any]]:
    (directory / "remote_store.py").write_text(STORE)
    process = subprocess.run(
        [
            *(sys.executable, "-c", REHEARSAL),
            *("events/predict.json", str(RESTORES), "hooks" if hooks else "none"),
        ],
        cwd=FUNCTION.parent,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": f"{FUNCTION}:{directory}",
            "EXTENSIONS": "remote_store",
            "STORE_URL": remote.url,
            "MODEL_URI": str(bundle),
            "DECISION_STREAM": "decisions",
            "AWS_ENDPOINT_URL": firehose.url,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stdout.splitlines() if line.startswith("RESTORED ")]
    return [json.loads(line.removeprefix("RESTORED ")) for line in lines]


def _distinct(restored: list[dict[str, Any]], key: str) -> int:
    return len({each[key] for each in restored})


@pytest.fixture
def firehose() -> Iterator[FaultyFront]:
    with FaultyFront() as front:
        yield front


@pytest.fixture
def remote() -> Iterator[FaultyFront]:
    with FaultyFront() as front:
        yield front


def test_each_restored_container_has_its_own_ids_random_state_loop_clock_and_sockets(
    tmp_path: Path, demo_bundle: Path, firehose: FaultyFront, remote: FaultyFront
) -> None:
    restored = _rehearse(tmp_path, demo_bundle, firehose, remote, hooks=True)
    assert [each["status"] for each in restored] == [200] * RESTORES
    for key in ("pid", "random", "numpy", "ssl", "request_id"):
        assert _distinct(restored, key) == RESTORES, key
    assert not any(each["inherits_loop"] for each in restored)
    assert all(each["uptime_is_new"] for each in restored)
    for front in (firehose, remote):  # the snapshot's connections are not used again
        assert len(set(front.ports)) == 1 + RESTORES
    assert _distinct(restored, "model") == 1


def test_the_rehearsal_detects_shared_state(
    tmp_path: Path, demo_bundle: Path, firehose: FaultyFront, remote: FaultyFront
) -> None:
    restored = _rehearse(tmp_path, demo_bundle, firehose, remote, hooks=False)
    assert _distinct(restored, "random") == _distinct(restored, "numpy") == 1
    assert all(each["inherits_loop"] for each in restored)
    assert not any(each["uptime_is_new"] for each in restored)
    assert len(set(firehose.ports)) == len(set(remote.ports)) == 1


@pytest.fixture
def adapter() -> Iterator[Adapter]:
    with fakes.container(MODEL_URI="/nowhere") as handler:
        yield handler._adapter


def test_no_snapshot_is_taken_without_the_model(adapter: Adapter, log: fakes.LogLines) -> None:
    """The version can then not be published, so it is never released."""

    def refused() -> Any:
        raise BundleError("gone")

    slot = ModelSlot(load=refused, fallback=None, retry_s=5)
    slot.load()
    with pytest.raises(ModelUnavailableError):
        snapstart.before_snapshot(slot, adapter)


def test_no_snapshot_is_taken_of_the_fallback(adapter: Adapter, log: fakes.LogLines) -> None:
    def refused() -> Any:
        raise BundleError("gone")

    slot = ModelSlot(load=refused, fallback=fakes.model, retry_s=5)
    slot.load()
    assert slot.model().degraded
    with pytest.raises(ModelUnavailableError):
        snapstart.before_snapshot(slot, adapter)


def test_a_bundle_that_was_refused_is_tried_once_more(
    adapter: Adapter, log: fakes.LogLines
) -> None:
    outcomes = iter([BundleError("not yet"), fakes.model()])

    def load() -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    slot = ModelSlot(load=load, fallback=None, retry_s=5)
    slot.load()
    snapstart.before_snapshot(slot, adapter)
    assert slot.model().degraded == ()


def test_a_restore_is_counted_by_its_own_init_type(capsys: pytest.CaptureFixture[str]) -> None:
    with fakes.container(MODEL_URI="/nowhere") as handler:
        capsys.readouterr()
        fakes.restore(handler)
        asyncio.get_event_loop().close()
    (line,) = (json.loads(each) for each in capsys.readouterr().out.splitlines())
    assert line["init_type"] == "snap-start-restore"
    assert line["InitDuration"] > 0


def test_a_restored_container_ends_runs_by_the_current_clock() -> None:
    class Stopper:
        ended = Event()

        def __setattr__(self, name: str, value: object) -> None:
            self.ended.set()

    slept = Inference(perf_counter() + 1_000, "self_test", None)
    watchdog.begin(slept)
    deadline_s = perf_counter() + 30
    while watchdog._next_check_s != slept.deadline_s and perf_counter() < deadline_s:
        pass
    watchdog._next_check_s = 0.0  # as if the clock had advanced but the sleep had not
    run = Inference(perf_counter() + 0.05, "lambda", Stopper())
    watchdog.begin(run)
    with fakes.container(MODEL_URI="/nowhere") as handler:
        fakes.restore(handler)
        asyncio.get_event_loop().close()
    try:
        assert Stopper.ended.wait(30)
    finally:
        watchdog.end(slept)
        watchdog.end(run)
