"""A mistake in a command's options or files gives one line, never a traceback."""

import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from feedbench.cli import app
from feedops.display import steps
from feedops.errors import EmulatorMissingError
from feedops.local.serve import serve
from feedops.local.serve_options import ServeOptions
from feedops.workspace import scratch_directory

COMMANDS = [
    str(command.callback.__name__) for command in app.registered_commands if command.callback
]
EMF = {
    "_aws": {
        "Timestamp": 1_790_000_000_000,
        "CloudWatchMetrics": [
            {"Namespace": "feedrank", "Dimensions": [[]], "Metrics": [{"Name": "Latency"}]}
        ],
    },
    "Latency": 1.5,
}


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has files that no command can use, and no model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "text").write_text("no log\n")
    (tmp_path / "directory").mkdir()
    (tmp_path / "other.jsonl").write_text('{"_aws": {"name": 1}}\n')
    (tmp_path / "log").write_text(json.dumps(EMF) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dashboard --metrics missing", "missing: No such file or directory"),
        ("dashboard --metrics directory", "directory: Is a directory"),
        ("dashboard --metrics text", "these logs hold no metric"),
        ("dashboard --metrics binary", "these logs hold no metric"),
        ("dashboard --metrics other.jsonl", "other.jsonl: no log of a local environment"),
        ("dashboard --metrics log --out text/x.png", "text: File exists"),
        ("dashboard --metrics log --out x.docx", "x.docx: the picture is a PNG"),
        ("invoke -e missing", "event missing: No such file or directory"),
        ("invoke -e directory", "event directory: Is a directory"),
        ("invoke -e text", "event text: not JSON"),
        ("invoke -e other.jsonl", "no bundle in data/bundles"),
        ("invoke -e other.jsonl --bundle missing", "missing is no bundle"),
        ("invoke -e other.jsonl --bundle text", "text is no bundle"),
        ("invoke -e other.jsonl --env A", "'A' is not NAME=VALUE"),
        ("serve --bundle missing", "missing is no bundle"),
        ("serve --bundle directory", "directory is no bundle"),
        ("serve --bundle directory --model models:/a/1", "--bundle names a bundle"),
        ("serve --model models:/a/1 --train", "--model names one model"),
        ("serve --model models:/a/1 --tracking-uri sqlite:///no.db", "MLflow has no such model"),
        ("serve --model a/1 --tracking-uri sqlite:///no.db", "MLflow has no such model"),
        ("serve --tracking-uri http://127.0.0.1:9", "MLflow can't be reached at 127.0.0.1:9"),
        ("serve --tracking-uri http://me:SECRET@127.0.0.1:x", "MLflow can't be reached at 127"),
        ("train --tracking-uri http://127.0.0.1:9", "MLflow can't be reached at 127.0.0.1:9"),
        ("publish --tracking-uri http://127.0.0.1:9", "MLflow can't be reached at 127.0.0.1:9"),
        ("serve --host 203.0.113.9 --port 18119", "--host must be an address of this machine"),
        ("serve --host nowhere.invalid --port 18119", "--host must be an address of this machine"),
        ("serve --port 0", "greater than or equal to 1"),
        ("serve --env A", "'A' is not NAME=VALUE"),
        ("run --network x", "'x' is not one of"),
        ("build --bundle missing", "no bundle in missing"),
        ("build --architecture x", "'x' is not one of"),
        ("budget missing", "in missing"),
        ("budget text", "in text"),
        ("bench --only x --bundle directory", "no measurement 'x'"),
        ("bench --bundle missing", "missing is no bundle"),
        ("bench --readme", "results.json holds no results"),
        ("bench --set-baseline", "results.json holds no results"),
        ("train --users 1", "users must be at least"),
        ("train --epochs x", "Invalid value for '--epochs'"),
        ("nothing", "No such command 'nothing'"),
        ("serve --nothing", "No such option: --nothing"),
    ],
)
def test_a_mistake_gives_one_line(line: str, message: str) -> None:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert "SECRET" not in result.output


def test_a_host_of_another_machine_is_not_reported_as_a_bad_port() -> None:
    result = CliRunner().invoke(app, ["serve", "--host", "203.0.113.9", "--port", "18119"])
    assert "choose another --port" not in result.stderr


def test_a_log_that_was_cut_off_is_drawn_up_to_there(working_directory: Path) -> None:
    log = working_directory / "log"
    with log.open("a") as opened:
        opened.write(json.dumps(EMF)[:90])
    result = CliRunner().invoke(app, ["dashboard", "--metrics", str(log), "--out", "it.png"])
    assert (result.exit_code, result.stdout) == (0, "it.png\n")
    assert (working_directory / "it.png").is_file()


def test_directories_of_dead_processes_are_deleted_and_others_are_kept(tmp_path: Path) -> None:
    others = {"12-monkeys", "2026", "process-of-mine", f"process-{os.getppid()}"}
    for name in (*others, "process-99999999999999999999"):
        (tmp_path / "run" / name).mkdir(parents=True)
    with scratch_directory(tmp_path / "run") as own:
        assert {path.name for path in (tmp_path / "run").iterdir()} == others | {own.name}
    assert {path.name for path in (tmp_path / "run").iterdir()} == others


def no_emulator() -> None:
    raise EmulatorMissingError("the Lambda emulator runs on Linux")


def test_without_an_emulator_uvicorn_serves_and_one_line_tells_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fronts: list[str | None] = []

    async def record(options: ServeOptions, *_: object) -> None:
        fronts.append(options.front)

    monkeypatch.setattr("feedops.local.serve.find_emulator", no_emulator)
    monkeypatch.setattr("feedops.local.serve._bundle", lambda _options, _console: Path())
    monkeypatch.setattr("feedops.local.serve._serve", record)
    serve(ServeOptions(port=18_119), Console())
    assert fronts == ["uvicorn"]
    assert capsys.readouterr().out.splitlines() == [
        "No Lambda runtime here, serving by uvicorn instead: the Lambda emulator runs on Linux",
        "Stopped.",
    ]


def test_an_explicit_front_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedops.local.serve.find_emulator", no_emulator)
    with pytest.raises(EmulatorMissingError):
        serve(ServeOptions(front="lambda"), Console(quiet=True))


def test_without_a_terminal_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with steps(Console(), "Publishing") as say:
        say("Exporting")
    assert capsys.readouterr().out == "Publishing\nExporting\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_option_has_a_help_text_and_no_flag_a_type(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "<bool>" not in result.stdout
    rows = [line.strip("│ ").split("  ") for line in result.stdout.splitlines() if " --" in line]
    without_help = [row for row in rows if len([cell for cell in row if cell.strip()]) < 2]
    assert without_help == []


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == "feedrank 0.1.0\n"
