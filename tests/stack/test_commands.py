"""What the README's commands deploy, as sam merges the command line with samconfig.toml."""

import inspect
import re
import shlex
import shutil
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

from stack.transform import PROJECT, template

README = (PROJECT / "README.md").read_text()
DEPLOY = README[README.index("## Deploy") : README.index("### What it costs")]
MODEL = f"s3://bundles/m/sha256-{'ab' * 32}/"
ENVIRONMENTS = ["dev", "staging", "prod"]


def _commands(program: str) -> Iterator[str]:
    """The program's commands in the README's section on deploying, one line each, no comments."""
    for block in re.findall(r"```console\n(.*?)```", DEPLOY, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").partition(" #")[0].strip()
            if command.startswith(f"{program} "):
                yield command


SAM_DEPLOY = [*_commands("sam deploy")]
(FIRST,) = SAM_DEPLOY


class CloudFormation:
    """Records the requested change set; `stack` holds the existing stack's parameters, if any."""

    def __init__(self, stack: dict[str, str] | None) -> None:
        self.stack = stack
        self.change_set: dict[str, Any] = {}

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if self.stack is None:
            message = f"Stack with id {StackName} does not exist"
            raise ClientError({"Error": {"Message": message}}, "DescribeStacks")
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE"}]}

    def get_template_summary(self, **_: str) -> dict[str, Any]:
        return {"Parameters": [{"ParameterKey": name} for name in self.stack or ()]}

    def create_change_set(self, **change_set: Any) -> None:
        self.change_set = change_set

    def values(self) -> dict[str, str]:
        """Every parameter's value as CloudFormation determines it: new, previous, or default."""
        changes = {each["ParameterKey"]: each for each in self.change_set["Parameters"]}
        values: dict[str, str] = {}
        for name, parameter in template()["Parameters"].items():
            if "ParameterValue" in changes.get(name, {}):
                values[name] = changes[name]["ParameterValue"]
            elif changes.get(name, {}).get("UsePreviousValue"):
                values[name] = (self.stack or {})[name]
            elif "Default" in parameter:
                values[name] = str(parameter["Default"])
            else:
                raise ValueError(f"Parameters: [{name}] must have values")
        return values


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh checkout without a build. Undoes sam's process-wide changes to PyYAML."""
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
    """sam's options, from the command and samconfig.toml; it stops before any action."""
    names = inspect.signature(sam_deploy.do_cli).parameters
    options: dict[str, Any] = {}

    def record(*values: Any) -> None:
        options.update(zip(names, values, strict=True))

    with patch.object(sam_deploy, "do_cli", record):
        result = CliRunner().invoke(sam_deploy.cli, shlex.split(command)[2:])
    return options, result


def _change_set(options: dict[str, Any], stack: dict[str, str] | None) -> CloudFormation:
    """What sam then requests from CloudFormation."""
    cloudformation = CloudFormation(stack)
    values = DeployContext.merge_parameters(template(), options["parameter_overrides"])
    Deployer(cloudformation).create_changeset(
        options["stack_name"],
        "",
        values,
        options["capabilities"],
        None,
        None,
        None,
        options["tags"],
    )
    return cloudformation


def _built(checkout: Path) -> None:
    (checkout / ".aws-sam" / "build").mkdir(parents=True)
    shutil.copy(checkout / "template.yaml", checkout / ".aws-sam" / "build")


def _in(environment: str, command: str) -> str:
    return re.sub(r"--config-env \w+", f"--config-env {environment}", command)


def _deployed(environment: str, checkout: Path) -> dict[str, str]:
    """The parameters of a stack that was created as in the README and then got a model."""
    _built(checkout)
    options, _ = _run(_in(environment, FIRST))
    return _change_set(options, None).values() | {"ModelUri": MODEL, "Auth": "jwt"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_first_deploy_creates_the_environment_that_it_names(
    environment: str, checkout: Path
) -> None:
    _built(checkout)
    options, _ = _run(_in(environment, FIRST))
    assert options["template_file"] == str(checkout / ".aws-sam" / "build" / "template.yaml")
    assert options["stack_name"] == f"feedrank-{environment}"
    assert options["guided"] is False
    values = _change_set(options, None).values()
    assert values["Environment"] == environment
    assert values["ModelUri"] == "/opt/model"
    assert values["ReservedConcurrency"] == "-1"  # a new account's 10 leave nothing to reserve
    assert (values["WarmStart"], values["ModelFallback"]) == {
        "dev": ("none", "none"),
        "staging": ("snapstart", "layer"),
        "prod": ("provisioned", "layer"),
    }[environment]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_new_code_keeps_the_model_and_every_changed_parameter(
    environment: str, checkout: Path
) -> None:
    before = _deployed(environment, checkout)
    options, _ = _run(_in(environment, FIRST))
    assert _change_set(options, before).values() == before


@pytest.mark.parametrize(
    "command", [*SAM_DEPLOY, "sam deploy", *(f"sam deploy --config-env {e}" for e in ENVIRONMENTS)]
)
def test_a_checkout_without_a_build_deploys_nothing(command: str, checkout: Path) -> None:
    """sam would upload the source directories without a warning."""
    options, result = _run(command)
    assert (checkout / "template.yaml").exists()
    assert options == {}
    assert "Template file not found" in result.output


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_first_deploy_with_other_parameters_can_not_default_to_another_environment(
    environment: str, checkout: Path
) -> None:
    """The command line's list replaces samconfig's, so Environment must have no default."""
    _built(checkout)
    options, _ = _run(f"sam deploy --config-env {environment} --parameter-overrides Auth=none")
    with pytest.raises(ValueError, match=r"\[Environment\] must have values"):
        _change_set(options, None).values()


@pytest.mark.parametrize("command", SAM_DEPLOY)
def test_no_command_writes_into_the_tracked_configuration(command: str, checkout: Path) -> None:
    _run(command)
    assert (checkout / "samconfig.toml").read_bytes() == (PROJECT / "samconfig.toml").read_bytes()
    assert not {"--guided", "-g", "--save-params"} & set(shlex.split(command))
