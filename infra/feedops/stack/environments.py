"""Checks samconfig.toml for errors that a deployment would find half-way through, and roll back.

CloudFormation's own rules can't compare numbers, and don't know the stack's name.
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
MAX_STACK_NAME = 64  # it is also the function's name, which may have as many characters


def check(config: Path | None = None) -> None:
    """Raises BuildError that lists every problem of every environment in `config`, or in CONFIG."""
    config = config or CONFIG
    problems = [
        f"{name}: {problem}"
        for name, environment in _read(config).items()
        for problem in conflicts(_stack_name(environment), _overrides(environment))
    ]
    if problems:
        raise BuildError("\n".join([f"{config.name} can't be deployed:", *problems]))


def deployment(name: str, config: Path | None = None) -> tuple[str, dict[str, str]]:
    """The stack's name and the parameters of an environment. Raises BuildError."""
    environments = _read(config or CONFIG)
    if name not in environments:
        names = ", ".join(environments)
        raise BuildError(f"samconfig.toml has no environment {name}; it has {names}")
    environment = environments[name]
    return _stack_name(environment), _overrides(environment)


def conflicts(stack_name: str, parameters: Mapping[str, str]) -> Iterator[str]:
    """What CloudFormation would find half-way; `parameters` override the template's defaults."""
    if len(stack_name) > MAX_STACK_NAME:
        yield f"stack_name has {len(stack_name)} characters, of {MAX_STACK_NAME} at most"
    values = {**_defaults(), **parameters}
    if values["WarmStart"] != "provisioned":
        return
    maximum = int(values["ProvisionedMax"])
    for name in ("ProvisionedMin", "BusyMin"):
        is_used = name != "BusyMin" or values["BusyFrom"]
        if is_used and int(values[name]) > maximum:
            yield f"{name}={values[name]} is above ProvisionedMax={maximum}"
    reserved = int(values["ReservedConcurrency"])
    if 0 <= reserved < maximum:
        yield f"ProvisionedMax={maximum} is above ReservedConcurrency={reserved}"


def _read(config: Path) -> dict[str, Any]:
    environments = tomllib.loads(config.read_text())
    environments.pop("version", None)
    return environments


def _defaults() -> dict[str, str]:
    return {
        name: str(parameter["Default"])
        for name, parameter in load(PROJECT / "template.yaml")["Parameters"].items()
        if "Default" in parameter
    }


def _stack_name(environment: Mapping[str, Any]) -> str:
    name: str = environment.get("global", {}).get("parameters", {}).get("stack_name", "")
    return name


def _overrides(environment: Mapping[str, Any]) -> dict[str, str]:
    overrides = environment.get("deploy", {}).get("parameters", {}).get("parameter_overrides", [])
    assignments = shlex.split(overrides) if isinstance(overrides, str) else overrides
    return dict(text.partition("=")[::2] for text in assignments)
