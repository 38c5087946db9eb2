"""What `sam deploy --config-env` would refuse late, half-way through, to roll all of it back.

CloudFormation's rules compare no numbers, and none of them knows the stack's name.
"""

import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feedops.errors import BuildError
from feedops.stack.template import load
from feedops.workspace import PROJECT

CONFIG = PROJECT / "samconfig.toml"
LONGEST_STACK_NAME = 64  # it is the function's too, which has no more


def check(config: Path | None = None) -> None:
    """Raises BuildError that names all that is wrong in any environment of `config`, or CONFIG."""
    config = config or CONFIG
    defaults = {
        name: str(parameter["Default"])
        for name, parameter in load(PROJECT / "template.yaml")["Parameters"].items()
        if "Default" in parameter
    }
    environments = tomllib.loads(config.read_text())
    environments.pop("version", None)
    wrong = [
        f"{name}: {reason}"
        for name, environment in environments.items()
        for reason in _wrong(environment, defaults)
    ]
    if wrong:
        raise BuildError("\n".join([f"{config.name} can't be deployed:", *wrong]))


def _wrong(environment: Mapping[str, Any], defaults: Mapping[str, str]) -> Iterator[str]:
    stack_name = environment.get("global", {}).get("parameters", {}).get("stack_name", "")
    if len(stack_name) > LONGEST_STACK_NAME:
        yield f"stack_name has {len(stack_name)} characters, of {LONGEST_STACK_NAME} at most"
    given = environment.get("deploy", {}).get("parameters", {}).get("parameter_overrides", [])
    listed = shlex.split(given) if isinstance(given, str) else given
    values = {**defaults, **dict(each.partition("=")[::2] for each in listed)}
    if values["WarmStart"] != "provisioned":
        return
    most = int(values["ProvisionedMax"])
    for fewest in ("ProvisionedMin", "BusyMin"):
        is_used = fewest != "BusyMin" or values["BusyFrom"]
        if is_used and int(values[fewest]) > most:
            yield f"{fewest}={values[fewest]} is above ProvisionedMax={most}"
    reserved = int(values["ReservedConcurrency"])
    if 0 <= reserved < most:
        yield f"ProvisionedMax={most} is above ReservedConcurrency={reserved}"
