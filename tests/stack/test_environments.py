"""`feedrank build` reports what a deployment would find late, before it builds anything."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedops.cli.main import app
from feedops.errors import BuildError
from feedops.stack import environments

PROVISIONED = "WarmStart=provisioned"


def _config(directory: Path, overrides: str, stack_name: str = "feedrank-prod") -> Path:
    path = directory / "samconfig.toml"
    path.write_text(
        f"version = 0.1\n[prod.global.parameters]\nstack_name = '{stack_name}'\n"
        f"[prod.deploy.parameters]\nparameter_overrides = {overrides}\n"
    )
    return path


def test_our_own_environments_can_be_deployed() -> None:
    environments.check()


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([PROVISIONED, "ProvisionedMin=11"], "ProvisionedMin=11 is above ProvisionedMax=10"),
        (
            [PROVISIONED, "BusyMin=11", "BusyFrom=cron(0 7 ? * MON-FRI *)"],
            "BusyMin=11 is above ProvisionedMax=10",
        ),
        (
            [PROVISIONED, "ReservedConcurrency=9"],
            "ProvisionedMax=10 is above ReservedConcurrency=9",
        ),
    ],
)
def test_contradictory_numbers_are_refused(
    overrides: list[str], reason: str, tmp_path: Path
) -> None:
    for text in (repr(overrides), repr(" ".join(f'"{override}"' for override in overrides))):
        with pytest.raises(BuildError, match=f"prod: {reason}"):
            environments.check(_config(tmp_path, text))


@pytest.mark.parametrize(
    "overrides",
    [
        ["ProvisionedMin=11"],  # not used without WarmStart=provisioned
        [PROVISIONED, "BusyMin=11"],  # not used without BusyFrom
        [PROVISIONED, "ProvisionedMin=10"],
        [PROVISIONED, "ReservedConcurrency=10"],
        [PROVISIONED, "ReservedConcurrency=-1"],
    ],
)
def test_consistent_numbers_are_accepted(overrides: list[str], tmp_path: Path) -> None:
    environments.check(_config(tmp_path, repr(overrides)))


def test_a_stack_name_is_no_longer_than_a_functions(tmp_path: Path) -> None:
    environments.check(_config(tmp_path, "[]", "x" * 64))
    with pytest.raises(BuildError, match="prod: stack_name has 65 characters, of 64 at most"):
        environments.check(_config(tmp_path, "[]", "x" * 65))


def test_nothing_is_built_if_an_environment_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = _config(tmp_path, f"['{PROVISIONED}', 'ProvisionedMin=11']")
    monkeypatch.setattr("feedops.stack.environments.CONFIG", wrong)
    monkeypatch.setattr("feedops.stack.build.build", lambda *_: pytest.fail("something was built"))
    result = CliRunner().invoke(app, ["build"])
    assert result.exit_code != 0
    assert "ProvisionedMin=11 is above ProvisionedMax=10" in result.output + str(result.exception)
