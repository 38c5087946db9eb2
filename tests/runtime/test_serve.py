"""`feedrank serve` as a process: moto, the function, HTTP."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from rich.console import Console

from feedops.errors import ListenError, StartError
from feedops.local.processes import LOCALHOST, free_port, reserve
from feedops.local.serve import serve
from feedops.local.serve_options import ServeOptions
from feedops.workspace import EVENTS
from feedrank.bundle.layout import MANIFEST, ONNX_MODEL, parse_manifest

LONGEST_S = 60.0
BODY: str = json.loads((EVENTS / "predict.json").read_bytes())["body"]

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def directory(demo_bundle: Path, tmp_path: Path) -> Path:
    """A working directory that already has the bundle of the model in production."""
    name = parse_manifest((demo_bundle / MANIFEST).read_bytes()).model_version
    shutil.copytree(demo_bundle, tmp_path / "data" / "bundles" / name)
    return tmp_path


@pytest.fixture
def feedrank(directory: Path, tracking_uri: str) -> Iterator[Command]:
    """Starts the command in the working directory; kills it at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from feedbench.cli import main; main()", *arguments],
            cwd=directory,
            env=os.environ | {"MLFLOW_TRACKING_URI": tracking_uri, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until_it_serves(process: subprocess.Popen[str]) -> str:
    """Its output until then."""
    assert process.stdout
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("Serving until"):
            return output
    pytest.fail(f"it ended: {output}{process.stderr.read() if process.stderr else ''}")


def predict(port: int) -> list[int]:
    """The items, best first."""
    headers = {"content-type": "application/json"}
    request = Request(f"http://{LOCALHOST}:{port}/predict", BODY.encode(), headers)
    with urlopen(request, timeout=LONGEST_S) as response:
        return [item["item_id"] for item in json.load(response)["predictions"]]


def descendants(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in children}.union(*(descendants(int(c)) for c in children))


@contextmanager
def all_end(pids: set[int]) -> Iterator[None]:
    """All of the processes end in time after the body."""
    handles = [os.pidfd_open(pid) for pid in pids]
    try:
        yield
        for handle in handles:
            assert select.select([handle], [], [], LONGEST_S)[0]
    finally:
        for handle in handles:
            os.close(handle)


def test_a_model_is_served_on_the_local_lambda_until_a_signal(
    feedrank: Command, directory: Path
) -> None:
    port = free_port()
    process = feedrank("serve", "--port", str(port), "--show-answer", "--concurrency", "1")
    output = until_it_serves(process)
    assert f"curl -s http://{LOCALHOST}:{port}/predict" in output
    assert "Items for user 123" in output

    ranked = predict(port)
    assert sorted(ranked) == sorted(json.loads(BODY)["item_ids"])
    moto = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "moto.server"], capture_output=True, check=True
    )
    os.kill(int(moto.stdout), signal.SIGKILL)
    assert predict(port) == ranked  # a loaded model needs no S3

    with all_end(descendants(process.pid)):
        process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=LONGEST_S)
    assert (process.returncode, stdout, stderr) == (0, "Stopped.\n", "")
    records = list((directory / "data" / "predictions").glob("predictions_*.jsonl"))
    assert len(records) == 1
    assert len(records[0].read_text().splitlines()) == 3
    assert list((directory / "data" / "run").iterdir()) == []


def test_uvicorn_serves_a_bundle_without_mlflow_and_killing_it_ends_every_process(
    feedrank: Command, directory: Path
) -> None:
    port = free_port()
    (bundle,) = (directory / "data" / "bundles").rename(directory / "mine").iterdir()
    process = feedrank(
        *("serve", "--port", str(port), "--front", "uvicorn"), *("--bundle", str(bundle))
    )
    until_it_serves(process)
    assert sorted(predict(port)) == sorted(json.loads(BODY)["item_ids"])
    with all_end(descendants(process.pid)):
        process.kill()


def test_features_are_read_from_dynamodb(feedrank: Command, directory: Path) -> None:
    port = free_port()
    (bundle,) = (directory / "data" / "bundles").iterdir()
    process = feedrank(
        *("serve", "--port", str(port), "--bundle", str(bundle), "--features", "dynamodb"),
        *("--concurrency", "1", "--env", "FEATURES_TIMEOUT_MS=30000"),
    )
    assert "features" in until_it_serves(process)
    assert sorted(predict(port)) == sorted(json.loads(BODY)["item_ids"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LONGEST_S)
    (file,) = (directory / "data" / "predictions").glob("predictions_*.jsonl")
    (record,) = map(json.loads, file.read_text().splitlines())
    assert {*record["row_sources"]["sources"]} == {"s"}
    assert record["degraded"] == []


def test_a_corrupt_bundle_is_refused_and_the_message_names_the_file(
    directory: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    [model] = directory.glob(f"data/bundles/*/{ONNX_MODEL}")
    broken = bytearray(model.read_bytes())
    broken[-1] ^= 1
    model.write_bytes(broken)
    with pytest.raises(StartError, match=r"^no model is served, .* with status 503") as caught:
        serve(ServeOptions(port=free_port(), concurrency=1), Console(quiet=True))
    assert "serving/model.onnx: its SHA-256 is" in str(caught.value)


def test_a_port_that_is_in_use_is_reported_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with reserve(LOCALHOST, 0) as other:
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            serve(ServeOptions(port=port), Console(quiet=True))
    assert str(caught.value) == (
        f"can't listen on {LOCALHOST}:{port}: Address already in use; choose another --port"
    )
    assert list(tmp_path.iterdir()) == []
