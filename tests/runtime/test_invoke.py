"""One event through a fresh environment, and what the command line makes of it."""

import asyncio
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedops.cli.main import app
from feedops.errors import FunctionTimeoutError, OperationError
from feedops.local.emulator import Function
from feedops.local.invoke import invoke, read_event
from feedops.workspace import EVENTS, FUNCTION

MakeEvent = Callable[..., bytes]


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_bundle: Path) -> Path:
    """With one bundle where bundles lie."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_bundle, tmp_path / "data" / "bundles" / "feed_ranker-1")
    return tmp_path


def test_an_invocation_has_its_answer_its_log_and_its_report(
    standin: Function, event: MakeEvent, tmp_path: Path
) -> None:
    done = asyncio.run(invoke(standin, event("answer", {"a": 1}), tmp_path))
    assert (done.response, done.error) == ({"a": 1}, None)
    printed, report = done.log
    assert printed == "stand-in initialised"
    assert report.startswith("REPORT RequestId: ")
    assert "Memory Size: 1769 MB" in report
    assert "Init Duration: " in report


def test_a_runtime_that_ignores_hang_ups_has_no_last_words(
    standin: Function, event: MakeEvent, tmp_path: Path
) -> None:
    """As under nohup, where the kernel wakes it to see the emulator's end."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done = asyncio.run(invoke(standin, event("answer", {}), tmp_path))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [line.partition(" ")[0] for line in done.log] == ["stand-in", "REPORT"]


def test_an_invocation_that_times_out_has_its_error_and_its_report(
    impatient: Function, event: MakeEvent, tmp_path: Path
) -> None:
    done = asyncio.run(invoke(impatient, event("hang"), tmp_path))
    assert done.response is None
    assert isinstance(done.error, FunctionTimeoutError)
    assert "Duration: 5000.00 ms" in done.log[-1]


def test_the_command_prints_the_answer_alone_on_standard_output(working_folder: Path) -> None:
    done = CliRunner().invoke(app, ["invoke", "-e", str(EVENTS / "predict.json")])
    assert done.exit_code == 0
    assert json.loads(json.loads(done.stdout)["body"])["model_version"] == "feed_ranker-1"
    assert done.stderr.splitlines()[-1].startswith("REPORT RequestId: ")
    assert list((working_folder / "data" / "run").iterdir()) == []


def test_an_event_may_come_from_standard_input(working_folder: Path) -> None:
    event = (EVENTS / "negative_id.json").read_bytes()
    done = CliRunner().invoke(app, ["invoke", "-e", "-"], input=event)
    assert (done.exit_code, json.loads(done.stdout)["statusCode"]) == (0, 422)


def test_a_function_error_is_a_red_line_and_an_exit_code(working_folder: Path) -> None:
    done = CliRunner().invoke(
        app, ["invoke", "-e", str(EVENTS / "predict.json"), "--env", "REQUEST_TIMEOUT_MS=soon"]
    )
    assert (done.exit_code, done.stdout) == (1, "")
    assert "SettingsError: wrong environment variables:" in done.stderr
    assert "REQUEST_TIMEOUT_MS" in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.splitlines()


def test_without_a_bundle_the_message_says_what_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["invoke", "-e", str(EVENTS / "predict.json")])
    assert done.exit_code == 1
    assert "no bundle in data/bundles" in done.stderr


@pytest.mark.parametrize("content", ["{", None])
def test_an_event_that_is_not_there_or_not_json_is_refused(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "event.json"
    if content:
        path.write_text(content)
    with pytest.raises(OperationError, match=f"event {path}: "):
        read_event(str(path))


@pytest.mark.parametrize(
    "wrong",
    [
        {"POWERTOOLS_LOG_LEVEL": "TRACE", "ENGINE_THREADS": "100000", "POWERTOOLS_DEV": "maybe"},
        {"DECISION_LOG_DIR": "/dev/null", "MODEL_FALLBACK": "layer"},
    ],
)
def test_an_init_that_fails_names_each_wrong_variable_in_the_log(
    wrong: dict[str, str], tmp_path: Path
) -> None:
    function = Function(FUNCTION, {"MODEL_URI": "/nowhere", **wrong}, timeout_s=60)
    event = (EVENTS / "predict.json").read_bytes()
    done = asyncio.run(invoke(function, event, tmp_path))
    assert done.error
    assert done.error.kind == "SettingsError"
    log = "\n".join(done.log)
    assert [
        name for name in wrong if f"{name}: " not in log or f"{name}: " not in str(done.error)
    ] == []
