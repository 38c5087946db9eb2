"""Every command of the README's section on deploying, run as far as a machine without an account
allows. One that is new there fails here until it has a way to be run."""

import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from botocore.client import BaseClient
from click.testing import CliRunner as SamRunner
from samcli.commands.delete import command as sam_delete
from typer.testing import CliRunner

from feedbench.cli import app
from feedops.release import account_checks
from feedops.release import doctor as doctor_module
from feedrank.bundle.layout import MANIFEST
from stack.recorded import NAME, NEW, OLD, PASSES, RecordedAws
from stack.test_commands import DEPLOY, _change_set, _run, checkout  # noqa: F401 a fixture
from stack.transform import PROJECT

Request = pytest.FixtureRequest


def _commands() -> list[str]:
    """In the section's blocks, and in its sentences where they have options; without comments."""
    blocks = re.findall(r"```console\n(.*?)```", DEPLOY, re.DOTALL)
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    commands = [line.removeprefix("$ ").strip() for line in lines if line.startswith("$ ")]
    sentences = re.sub(r"```.*?```", "", DEPLOY, flags=re.DOTALL)
    spans = re.findall(r"`((?:feedrank|sam|make) [^`]+)`", sentences)
    return [*dict.fromkeys([*commands, *(span for span in spans if _is_whole(span))])]


def _is_whole(span: str) -> bool:
    """Not only a command's name, nor an option without its value."""
    return span.startswith("make ") or (len(span.split()) > 2 and not span.endswith(" --to"))


# ---- how each is run ----


def _publishes(command: str, request: Request) -> None:
    monkeypatch, directory = _here(request)
    request.getfixturevalue("demo_bundle")  # logs and registers the model
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("tracking_uri"))
    _feedrank(command)
    assert (directory / "layers" / "model" / "bundle" / MANIFEST).is_file()


def _is_a_target(command: str, request: Request) -> None:
    """What it builds is measured by test_function_artifact.py."""
    process = subprocess.run(
        ["make", "--dry-run", "--old-file", ".venv/.ready", *command.split()[1:]],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f".venv/bin/feedrank {command.split()[1]}" in process.stdout


def _is_parsed(command: str, request: Request) -> None:
    """It trains for minutes, or changes a registry or records: unit tests run its parts."""
    words = shlex.split(re.sub(r"<\w+>", "bucket", command))[1:]
    group: Any = typer.main.get_command(app)
    while words[0] in getattr(group, "commands", {}):
        group = group.commands[words.pop(0)]
        if not words:
            break
    group.make_context("", [*words])


def _asks_aws(command: str, request: Request) -> None:
    aws = _recorded(request)
    aws.frames = [*PASSES]
    output = _feedrank(re.sub(r"(release) ", rf"\1 {NEW[0]} ", command))
    if command.startswith("feedrank doctor"):
        assert "account" in output
    assert not any(name.startswith("Delete") and name != "DeleteChangeSet" for name in aws.actions)


def _tails(command: str, request: Request) -> None:
    _recorded(request)
    _feedrank(f"{command} --no-follow")


def _deploys(command: str, request: Request) -> None:
    """Up to the change set that sam requests."""
    directory: Path = request.getfixturevalue("checkout")
    (directory / ".aws-sam" / "build").mkdir(parents=True)
    (directory / "template.yaml").rename(directory / ".aws-sam" / "build" / "template.yaml")
    options, _ = _run(command)
    assert _change_set(options, None).change_set["ChangeSetType"] == "CREATE"


def _deletes(command: str, request: Request) -> None:
    monkeypatch, _ = _here(request)
    request.getfixturevalue("checkout")
    calls: list[tuple[str, Mapping[str, Any]]] = []

    def call(_: BaseClient, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        calls.append((operation, given))
        stack = {"StackName": "feedrank-dev", "StackStatus": "DELETE_COMPLETE"}
        answers = {
            "DescribeStacks": {"Stacks": [stack | {"EnableTerminationProtection": False}]},
            "GetTemplate": {"TemplateBody": "Resources: {}"},
        }
        return answers.get(operation, {})

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    result = SamRunner().invoke(sam_delete.cli, shlex.split(command)[2:], input="y\ny\n")
    assert result.exit_code == 0, result.output
    deleted = [given["StackName"] for name, given in calls if name == "DeleteStack"]
    assert deleted[-1] == "feedrank-dev"
    assert all(re.fullmatch("feedrank-dev(-.*-CompanionStack)?", name) for name in deleted)


def _here(request: Request) -> tuple[pytest.MonkeyPatch, Path]:
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    directory: Path = request.getfixturevalue("tmp_path")
    monkeypatch.chdir(directory)
    return monkeypatch, directory


def _recorded(request: Request) -> RecordedAws:
    """An account, and a machine with a bundle for the layer."""
    monkeypatch, directory = _here(request)
    (directory / MANIFEST).parent.mkdir()
    (directory / MANIFEST).write_bytes(OLD[1])
    monkeypatch.setattr(doctor_module, "BUNDLE", directory)
    for module in (doctor_module, account_checks):
        monkeypatch.setattr(module, "BUILD", directory / "build")
    monkeypatch.setattr(doctor_module, "find_python", lambda _: "/usr/bin/python3.13")
    aws = RecordedAws()
    aws.versions["43"] = NEW[0]
    return aws.install(monkeypatch)


def _feedrank(command: str) -> str:
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    return result.output


WAYS: Mapping[str, Callable[[str, Request], None]] = {
    "feedrank publish": _publishes,
    "make": _is_a_target,
    "feedrank doctor": _asks_aws,
    "sam deploy": _deploys,
    "feedrank train": _is_parsed,
    "feedrank promote": _is_parsed,
    "feedrank release": _asks_aws,
    "feedrank status": _asks_aws,
    "feedrank tail": _tails,
    "feedrank rollback": _asks_aws,
    "feedrank decisions erase": _is_parsed,
    "sam delete": _deletes,
}


def test_every_way_is_of_a_command_in_the_section() -> None:
    assert {way for way in WAYS for command in _commands() if _is(command, way)} == set(WAYS)


def _is(command: str, way: str) -> bool:
    return f"{command} ".startswith(f"{way} ")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sam calls its own deprecated code
@pytest.mark.parametrize("command", _commands())
def test_a_command_of_the_section_runs(command: str, request: Request) -> None:
    (run,) = (run for way, run in WAYS.items() if _is(command, way))
    run(command, request)


def test_the_section_names_no_call_of_aws_that_a_later_deploy_would_fail_by() -> None:
    """CodeDeploy refuses an alias that `aws lambda update-alias` has moved. `feedrank rollback`
    moves it too, and says what has to be done before."""
    assert "update-alias" not in DEPLOY
    assert f"feedrank rollback --stack {NAME}" in DEPLOY
    assert "--realign" in DEPLOY
