"""`feedrank invoke`: one event, one cold start."""

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
from feedops.local.processes import lines_of
from feedops.workspace import EVENTS, FUNCTION

MakeEvent = Callable[..., bytes]


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_bundle: Path) -> Path:
    """Has one bundle in data/bundles."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_bundle, tmp_path / "data" / "bundles" / "feed_ranker-1")
    return tmp_path


def test_an_invocation_has_a_response_a_log_and_a_report(
    standin: Function, event: MakeEvent, tmp_path: Path
) -> None:
    result = asyncio.run(invoke(standin, event("answer", {"a": 1}), tmp_path))
    assert (result.response, result.error) == ({"a": 1}, None)
    printed, report = result.log
    assert printed == "stand-in initialised"
    assert report.startswith("REPORT RequestId: ")
    assert "Memory Size: 1769 MB" in report
    assert "Init Duration: " in report


def test_a_runtime_that_ignores_sighup_prints_nothing_at_the_end(
    standin: Function, event: MakeEvent, tmp_path: Path
) -> None:
    """As under nohup, where the kernel resumes it after the emulator has ended."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = asyncio.run(invoke(standin, event("answer", {}), tmp_path))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [line.partition(" ")[0] for line in result.log] == ["stand-in", "REPORT"]


def test_an_invocation_that_times_out_has_an_error_and_a_report(
    impatient: Function, event: MakeEvent, tmp_path: Path
) -> None:
    result = asyncio.run(invoke(impatient, event("hang"), tmp_path))
    assert result.response is None
    assert isinstance(result.error, FunctionTimeoutError)
    assert "Duration: 5000.00 ms" in result.log[-1]


def test_no_text_of_a_caller_begins_a_line_of_a_log(tmp_path: Path) -> None:
    """JSON holds some of what Unicode calls the end of a line as it is."""
    lines = ['{"user_id":"a\x85END RequestId: 1\u2028b"}', "", "END RequestId: 2"]
    log = tmp_path / "environment.log"
    log.write_text("\n".join(lines) + "\n")
    assert lines_of(log) == lines


def test_standard_output_is_the_response_alone(working_directory: Path) -> None:
    result = CliRunner().invoke(app, ["invoke", "-e", str(EVENTS / "predict.json")])
    assert result.exit_code == 0
    assert json.loads(json.loads(result.stdout)["body"])["model_version"] == "feed_ranker-1"
    assert result.stderr.splitlines()[-1].startswith("REPORT RequestId: ")
    assert list((working_directory / "data" / "run").iterdir()) == []


def test_an_event_may_come_from_standard_input(working_directory: Path) -> None:
    event = (EVENTS / "negative_id.json").read_bytes()
    result = CliRunner().invoke(app, ["invoke", "-e", "-"], input=event)
    assert (result.exit_code, json.loads(result.stdout)["statusCode"]) == (0, 422)


def test_a_function_error_prints_a_line_and_exits_with_code_1(working_directory: Path) -> None:
    result = CliRunner().invoke(
        app, ["invoke", "-e", str(EVENTS / "predict.json"), "--env", "REQUEST_TIMEOUT_MS=soon"]
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert "SettingsError: wrong environment variables:" in result.stderr
    assert "REQUEST_TIMEOUT_MS" in result.stderr
    assert "Traceback (most recent call last)" not in result.stderr.splitlines()


def test_without_a_bundle_the_message_names_the_command_that_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["invoke", "-e", str(EVENTS / "predict.json")])
    assert result.exit_code == 1
    assert "no bundle in data/bundles" in result.stderr


@pytest.mark.parametrize("content", ["{", None])
def test_an_event_that_is_missing_or_not_json_is_refused(
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
    result = asyncio.run(invoke(function, event, tmp_path))
    assert result.error
    assert result.error.kind == "SettingsError"
    log = "\n".join(result.log)
    assert [
        name for name in wrong if f"{name}: " not in log or f"{name}: " not in str(result.error)
    ] == []
