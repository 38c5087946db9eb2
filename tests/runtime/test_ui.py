"""`feedrank ui` as a user has it: MLflow's own pages, on the store that training wrote."""

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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def ask(address: str, path: str) -> bytes:
    with urlopen(Request(f"{address}{path}"), timeout=LONGEST_S) as response:
        body: bytes = response.read()
        return body


def test_the_pages_show_the_store_at_the_address_that_is_printed(
    tracking_uri: str, demo_bundle: Path, folder: Path
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
        said = [line for line in iter(process.stdout.readline, "Serving until Ctrl-C.\n") if line]
        address = f"http://{LOCALHOST}:{port}"
        assert said[-1] == f"MLflow shows {tracking_uri} at {address}\n"
        assert b"<title>MLflow</title>" in ask(address, "/")
        found = json.loads(
            ask(address, "/ajax-api/2.0/mlflow/registered-models/get?name=feed_ranker")
        )
        assert found["registered_model"]["name"] == "feed_ranker"
        process.send_signal(signal.SIGINT)
        assert process.wait(LONGEST_S) == 0
    finally:
        process.kill()
        process.communicate()
    assert [path.name for path in folder.iterdir()] == ["data"]  # MLflow left nothing beside it


def test_a_server_has_pages_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with reserve(LOCALHOST, 0) as server:
        server.listen()
        at = f"{LOCALHOST}:{server.getsockname()[1]}"
        monkeypatch.setenv("NO_PROXY", LOCALHOST)
        serve_ui(5_000, f"http://me:secret@{at}", Console())
    assert capsys.readouterr().out == f"MLflow serves its pages itself: http://{at}\n"


def test_a_store_that_is_not_there_is_named_and_not_made(folder: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"mlflow\.db: there is nothing to show"):
        serve_ui(free_port(), None, QUIET)
    assert list(folder.iterdir()) == []


def test_a_port_that_is_taken_is_named(tracking_uri: str, demo_bundle: Path) -> None:
    with reserve(LOCALHOST, 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=str(port)):
            serve_ui(port, tracking_uri, QUIET)
