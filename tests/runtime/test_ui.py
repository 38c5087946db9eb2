"""`feedrank ui` as a process: MLflow's own pages, on the store that training has written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from rich.console import Console

from feedops.errors import ListenError, ModelMissingError
from feedops.local.processes import LOCALHOST, free_port, reserve
from feedops.local.ui import serve_ui

LONGEST_S = 60.0
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def get(address: str, path: str) -> bytes:
    with urlopen(Request(f"{address}{path}"), timeout=LONGEST_S) as response:
        body: bytes = response.read()
        return body


def test_the_pages_show_the_store_at_the_address_that_is_printed(
    tracking_uri: str, demo_bundle: Path, directory: Path
) -> None:
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from feedbench.cli import main; main()"),
            *("ui", "--port", str(port), "--tracking-uri", tracking_uri),
        ],
        env=os.environ | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        lines = [line for line in iter(process.stdout.readline, "Serving until Ctrl-C.\n") if line]
        address = f"http://{LOCALHOST}:{port}"
        assert lines[-1] == f"MLflow shows {tracking_uri} at {address}\n"
        assert b"<title>MLflow</title>" in get(address, "/")
        response = json.loads(
            get(address, "/ajax-api/2.0/mlflow/registered-models/get?name=feed_ranker")
        )
        assert response["registered_model"]["name"] == "feed_ranker"
        process.send_signal(signal.SIGINT)
        assert process.wait(LONGEST_S) == 0
    finally:
        process.kill()
        process.communicate()
    assert [path.name for path in directory.iterdir()] == ["data"]  # MLflow left nothing beside it


def test_the_address_of_an_mlflow_server_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with reserve(LOCALHOST, 0) as server:
        server.listen()
        at = f"{LOCALHOST}:{server.getsockname()[1]}"
        monkeypatch.setenv("NO_PROXY", LOCALHOST)
        serve_ui(5_000, f"http://me:secret@{at}", Console())
    assert capsys.readouterr().out == f"MLflow serves its pages itself: http://{at}\n"


def test_a_missing_store_is_named_and_not_created(directory: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"mlflow\.db: there is nothing to show"):
        serve_ui(free_port(), None, QUIET)
    assert list(directory.iterdir()) == []


def test_a_port_that_is_in_use_is_named(tracking_uri: str, demo_bundle: Path) -> None:
    with reserve(LOCALHOST, 0) as other:
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=str(port)):
            serve_ui(port, tracking_uri, QUIET)
