"""infra/pipeline's workflows: GitHub's own schema accepts them, they refer to what exists, and no
input is run as a command."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from feedops.cli.main import app
from feedops.display import print_facts
from stack.recorded import NEW
from stack.transform import PROJECT

WORKFLOWS = {
    re.match(r"# Copy to \.github/workflows/([\w-]+\.yaml)", path.read_text())[1]: path
    for path in sorted((PROJECT / "infra" / "pipeline").glob("github*.yaml"))
}
ENVIRONMENTS = ("dev", "staging", "prod")


def _lint(*paths: Path) -> subprocess.CompletedProcess[str]:
    """By the schema of SchemaStore, which comes with check-jsonschema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    return subprocess.run(
        [*command, "vendor.github-workflows", *paths], capture_output=True, text=True, check=False
    )


def _read(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOWS[name].read_text())
    return workflow


def _steps(name: str) -> list[dict[str, Any]]:
    return [step for job in _read(name)["jobs"].values() for step in job.get("steps", ())]


def test_the_schema_accepts_every_workflow() -> None:
    process = _lint(*WORKFLOWS.values())
    assert process.returncode == 0, process.stdout


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("runs-on:", "runs_on:"),
        ("id-token: write", "id-token: always"),
        ("- uses: actions/checkout@v5", "- use: actions/checkout@v5"),
    ],
)
def test_the_schema_refuses_a_mistake(text: str, mistake: str, tmp_path: Path) -> None:
    source = WORKFLOWS["release-one.yaml"].read_text()
    assert text in source
    (tmp_path / "w.yaml").write_text(source.replace(text, mistake))
    assert _lint(tmp_path / "w.yaml").returncode == 1


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_no_secret_and_no_expression_in_a_script(name: str) -> None:
    assert "secrets." not in WORKFLOWS[name].read_text()
    for step in _steps(name):
        assert "${{" not in step.get("run", ""), "an input would be run as a command"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_job_refers_to_jobs_and_workflows_that_exist(name: str) -> None:
    jobs = _read(name)["jobs"]
    for job in jobs.values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs)
        if "uses" in job:
            called = _read(job["uses"].removeprefix("./.github/workflows/"))
            inputs = called[True]["workflow_call"]["inputs"]  # YAML reads `on` as true
            assert set(job["with"]) == set(inputs)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_pipe_fails_where_any_of_its_commands_does(name: str) -> None:
    """GitHub's own shell is `bash -e`; one that is asked for has pipefail too."""
    for step in _steps(name):
        if re.search(r"[^|]\|[^|]", step.get("run", "")):
            assert step.get("shell") == "bash", step


def test_the_uri_that_publishing_prints_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    (step,) = (step for step in _steps("release.yaml") if step.get("id") == "publish")
    (script,) = re.findall(r"sed -n '([^']+)'", step["run"])
    print_facts(Console(), {"bundle": NEW[0], "uploaded": "12 files"})
    printed = capsys.readouterr().out
    found = subprocess.run(
        ["sed", "-n", script], input=printed, capture_output=True, text=True, check=True
    )
    assert found.stdout == f"uri={NEW[0]}\n"


def test_every_environment_gets_the_bundle_that_was_published_once() -> None:
    jobs = _read("release.yaml")["jobs"]
    uri = "${{ needs.publish.outputs.uri }}"
    for environment in ENVIRONMENTS:
        assert jobs[environment]["with"] == {"environment": environment, "uri": uri}
    assert jobs["staging"]["needs"] == ["publish", "dev"]
    assert jobs["prod"]["needs"] == ["publish", "staging"]


def test_the_commands_exist() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS.values())
    commands = set(re.findall(r"feedrank (publish|release|status|doctor)\b", text))
    assert {"publish", "release", "status"} <= commands
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
