"""What the README's commands deploy, by sam's own merging of command line and samconfig.toml."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from samcli.commands.deploy import command as sam_deploy
from samcli.commands.deploy.deploy_context import DeployContext
from samcli.lib.deploy.deployer import Deployer

from stack.transform import PROJECT, packaged, template

README = (PROJECT / "README.md").read_text()
DEPLOY = README[README.index("## Deploy") : README.index("### What it costs")]
MODEL = f"s3://bundles/m/sha256-{'ab' * 32}/"
SHOWN_MODEL = "s3://.../sha256-.../"
ENVIRONMENTS = ["dev", "staging", "prod"]


def _commands(program: str) -> Iterator[str]:
    """The ones in the README's part on deploying, joined, without their comments."""
    for block in re.findall(r"```console\n(.*?)```", DEPLOY, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").partition(" #")[0].strip()
            if command.startswith(f"{program} "):
                yield command


SAM_DEPLOY = [*_commands("sam deploy")]
FIRST, NEW_MODEL = SAM_DEPLOY


class CloudFormation:
    """Remembers the change set that it is asked for; `stack` is there, with these parameters."""

    def __init__(self, stack: dict[str, str] | None) -> None:
        self.stack = stack
        self.change_set: dict[str, Any] = {}

    def describe_stacks(self, StackName: str) -> dict[str, Any]:  # noqa: N803 boto3's
        if self.stack is None:
            message = f"Stack with id {StackName} does not exist"
            raise ClientError({"Error": {"Message": message}}, "DescribeStacks")
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE"}]}

    def get_template_summary(self, **_: str) -> dict[str, Any]:
        return {"Parameters": [{"ParameterKey": name} for name in self.stack or ()]}

    def create_change_set(self, **change_set: Any) -> None:
        self.change_set = change_set

    def values(self) -> dict[str, str]:
        """Every parameter's, as CloudFormation decides on it: new, kept, or the default."""
        given = {each["ParameterKey"]: each for each in self.change_set["Parameters"]}
        decided: dict[str, str] = {}
        for name, parameter in template()["Parameters"].items():
            if "ParameterValue" in given.get(name, {}):
                decided[name] = given[name]["ParameterValue"]
            elif given.get(name, {}).get("UsePreviousValue"):
                decided[name] = (self.stack or {})[name]
            elif "Default" in parameter:
                decided[name] = str(parameter["Default"])
            else:
                raise ValueError(f"Parameters: [{name}] must have values")
        return decided


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh one: nothing is built. What sam does to PyYAML, for the whole process, is undone."""
    for parser, name in (
        (yaml.constructor.SafeConstructor, "yaml_constructors"),
        (yaml.SafeLoader, "yaml_constructors"),
        (yaml.SafeLoader, "yaml_multi_constructors"),
    ):
        monkeypatch.setattr(parser, name, dict(getattr(parser, name)))
    for name in ("template.yaml", "samconfig.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAM_CLI_TELEMETRY", "0")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("__SAM_CLI_APP_DIR", str(tmp_path / "home"))
    return tmp_path


def _run(command: str) -> tuple[dict[str, Any], Result]:
    """What sam makes of it and of samconfig.toml; it stops before it does anything."""
    names = inspect.signature(sam_deploy.do_cli).parameters
    parsed: dict[str, Any] = {}

    def caught(*values: Any) -> None:
        parsed.update(zip(names, values, strict=True))

    with patch.object(sam_deploy, "do_cli", caught):
        result = CliRunner().invoke(sam_deploy.cli, shlex.split(command)[2:])
    return parsed, result


def _change_set(parsed: dict[str, Any], stack: dict[str, str] | None) -> CloudFormation:
    """What sam then asks CloudFormation for."""
    cloudformation = CloudFormation(stack)
    values = DeployContext.merge_parameters(template(), parsed["parameter_overrides"])
    Deployer(cloudformation).create_changeset(
        parsed["stack_name"], "", values, parsed["capabilities"], None, None, None, parsed["tags"]
    )
    return cloudformation


def _built(checkout: Path) -> None:
    (checkout / ".aws-sam" / "build").mkdir(parents=True)
    shutil.copy(checkout / "template.yaml", checkout / ".aws-sam" / "build")


def _in(environment: str, command: str) -> str:
    return re.sub(r"--config-env \w+", f"--config-env {environment}", command)


def _deployed(environment: str, checkout: Path) -> dict[str, str]:
    """The parameters of a stack that was created as the README says, and then given a model."""
    _built(checkout)
    parsed, _ = _run(_in(environment, FIRST))
    return _change_set(parsed, None).values() | {"ModelUri": MODEL, "Auth": "jwt"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_first_deploy_is_of_the_environment_that_it_names(
    environment: str, checkout: Path
) -> None:
    _built(checkout)
    parsed, _ = _run(_in(environment, FIRST))
    assert parsed["template_file"] == str(checkout / ".aws-sam" / "build" / "template.yaml")
    assert parsed["stack_name"] == f"feedrank-{environment}"
    assert parsed["guided"] is False
    values = _change_set(parsed, None).values()
    assert values["Environment"] == environment
    assert values["ModelUri"] == "/opt/model"
    assert values["ReservedConcurrency"] == "-1"  # nothing of a new account's 10 can be reserved
    assert (values["WarmStart"], values["ModelFallback"]) == {
        "dev": ("none", "none"),
        "staging": ("snapstart", "layer"),
        "prod": ("provisioned", "layer"),
    }[environment]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_new_code_keeps_the_model_and_all_that_was_changed(
    environment: str, checkout: Path
) -> None:
    before = _deployed(environment, checkout)
    parsed, _ = _run(_in(environment, FIRST))
    assert _change_set(parsed, before).values() == before


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_new_model_changes_the_model_and_nothing_else(environment: str, checkout: Path) -> None:
    before = _deployed(environment, checkout)
    (checkout / "deployed.yaml").write_text("Resources: {}")
    parsed, _ = _run(_in(environment, NEW_MODEL))
    assert parsed["template_file"] == str(checkout / "deployed.yaml")
    after = _change_set(parsed, before)
    assert after.values() == before | {"ModelUri": SHOWN_MODEL}
    assert after.change_set["StackName"] == f"feedrank-{environment}"
    assert set(after.change_set["Capabilities"]) == {"CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"}


def test_a_new_model_takes_the_template_that_is_deployed() -> None:
    (command,) = _commands("aws cloudformation get-template")
    words = shlex.split(command)
    assert words[words.index("--template-stage") + 1] == "Original"  # else what SAM made of it
    assert words[-2:] == [">", words_after(NEW_MODEL, "--template-file")]
    stack_name = words_after(command, "--stack-name")
    assert stack_name == f"feedrank-{words_after(NEW_MODEL, '--config-env')}"
    ignored = (PROJECT / ".gitignore").read_text().splitlines()
    assert f"/{words[-1]}" in ignored


def test_sam_leaves_a_deployed_template_as_it_is(tmp_path: Path) -> None:
    """Its code and its nested templates are on S3 already, so nothing is uploaded anew."""
    deployed = packaged(template())
    for name, resource in deployed["Resources"].items():
        resource.setdefault("Metadata", {})["SamResourceId"] = name  # sam's, since the first time
    for stack in ("Data", "Delivery", "Observability"):
        url = f"https://s3.eu-west-1.amazonaws.com/artifacts/{stack}.template"
        deployed["Resources"][stack]["Properties"]["TemplateURL"] = url
    (tmp_path / "deployed.yaml").write_text(json.dumps(deployed))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "samcli", "package", "--template-file", "deployed.yaml"),
            *("--s3-bucket", "artifacts", "--use-json"),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            "SAM_CLI_TELEMETRY": "0",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",  # nobody: an upload would fail
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == deployed


@pytest.mark.parametrize(
    "command", [*SAM_DEPLOY, "sam deploy", *(f"sam deploy --config-env {e}" for e in ENVIRONMENTS)]
)
def test_a_checkout_without_a_build_deploys_nothing(command: str, checkout: Path) -> None:
    """sam would upload the sources' folders, without a word."""
    parsed, result = _run(command)
    assert (checkout / "template.yaml").exists()
    assert parsed == {}
    assert "Template file not found" in result.output


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_first_deploy_with_parameters_of_its_own_is_never_of_another_environment(
    environment: str, checkout: Path
) -> None:
    """The command line's list takes the place of samconfig's: no default may be fallen to."""
    _built(checkout)
    parsed, _ = _run(f"sam deploy --config-env {environment} --parameter-overrides Auth=none")
    with pytest.raises(ValueError, match=r"\[Environment\] must have values"):
        _change_set(parsed, None).values()


@pytest.mark.parametrize("command", SAM_DEPLOY)
def test_no_command_writes_into_the_tracked_configuration(command: str, checkout: Path) -> None:
    _run(command)
    assert (checkout / "samconfig.toml").read_bytes() == (PROJECT / "samconfig.toml").read_bytes()
    assert not {"--guided", "-g", "--save-params"} & set(shlex.split(command))


def words_after(command: str, option: str) -> str:
    words = shlex.split(command)
    return words[words.index(option) + 1]
