"""`feedrank doctor`: what would stop a deploy or a release, before CloudFormation finds it."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from rich.console import Console
from rich.text import Text

from feedmodel.errors import CommandError
from feedops.errors import OperationError
from feedops.release import account_checks
from feedops.release.account import connect, explained
from feedops.stack import environments, values
from feedops.stack.budget import LEFT_BYTES, LIMIT_BYTES, measure
from feedops.stack.build import BUILD, BUNDLE, find_python
from feedrank.bundle.layout import MANIFEST, parse_manifest

State = Literal["ok", "warning", "wrong"]
STYLES: Mapping[State, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red"}
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
ENGINES = ("docker", "podman", "finch")


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    state: State
    text: str


def doctor(stack: str | None, config_env: str | None, output: Console) -> None:
    """Raises OperationError where something is wrong, once all of it is printed."""
    parameters: Mapping[str, str] = {}
    name = stack or ""
    if config_env:
        configured, parameters = environments.deployment(config_env)
        name = name or configured
    findings: list[Finding] = []
    if config_env or not stack:  # a release needs nothing of a build
        findings += _of_this_machine()
    if config_env:
        findings += _of_parameters(name, parameters)
    findings += _of_account(name, parameters if config_env else None)
    _print(findings, output)
    wrong = sum(finding.state == "wrong" for finding in findings)
    if wrong:
        raise OperationError(f"{wrong} of {len(findings)} checks found something wrong")


def _print(findings: list[Finding], output: Console) -> None:
    for finding in findings:
        state = (f"{finding.state:9}", STYLES[finding.state])
        line = Text.assemble((f"{finding.subject:12}", "bold"), state, finding.text)
        output.print(line, soft_wrap=True)


# ---- this machine ----


def _of_this_machine() -> Iterator[Finding]:
    yield _checked("python3.13", lambda: str(find_python(os.environ)))
    engine = next((path for name in ENGINES if (path := shutil.which(name))), None)
    if engine:
        yield Finding("engine", "ok", engine)
    else:
        text = f"none of {', '.join(ENGINES)}: a deploy needs none, `sam local` and images do"
        yield Finding("engine", "warning", text)
    yield _checked("bundle", _layer_bundle)
    if BUILD.is_dir():
        yield _checked("size", _build_size)
    else:
        yield Finding("size", "warning", "no build yet: make build")


def _checked(subject: str, check: Callable[[], str]) -> Finding:
    """What `check` returns, or why it raises."""
    try:
        return Finding(subject, "ok", check())
    except (CommandError, OSError, ValueError) as error:
        return Finding(subject, "wrong", str(error))


def _layer_bundle() -> str:
    path = BUNDLE / MANIFEST
    if not path.is_file():
        raise OperationError("none for the model layer: feedrank publish --to layers/model/bundle")
    manifest = parse_manifest(path.read_bytes())
    size = sum(file.stat().st_size for file in (BUNDLE / "serving").iterdir())
    if size > LEFT_BYTES:
        raise OperationError(
            f"{size / 1e6:.0f} MB, and a layer has about {LEFT_BYTES / 1e6:.0f} left: "
            "publish it to S3, and a small one to layers/model/bundle"
        )
    return f"{manifest.model_version}, {manifest.short_digest}, {size / 1e6:.1f} MB for the layer"


def _build_size() -> str:
    total = measure(BUILD).total
    if total > LIMIT_BYTES:
        raise OperationError(
            f"function and layers have {total / 1e6:.0f} MB unzipped, of "
            f"{LIMIT_BYTES / 1e6:.0f} at most: feedrank budget"
        )
    return f"{total / 1e6:.0f} of {LIMIT_BYTES / 1e6:.0f} MB unzipped"


# ---- what would be deployed ----


def _of_parameters(name: str, parameters: Mapping[str, str]) -> Iterator[Finding]:
    wrong = [*values.problems(parameters)]
    if not wrong:
        wrong = [*environments.conflicts(name, parameters)]
    if not NAME.fullmatch(name):
        wrong.append(f"{name!r} is no stack name: letters, digits and dashes, a letter first")
    for problem in wrong:
        yield Finding("parameters", "wrong", problem)
    if not wrong:
        assignments = " ".join(f"{key}={value}" for key, value in parameters.items())
        yield Finding("parameters", "ok", f"{name}: {assignments}")


# ---- the account ----


def _of_account(name: str, parameters: Mapping[str, str] | None) -> Iterator[Finding]:
    try:
        with explained("account"):
            account = connect()
            caller = account_checks.caller(account)
    except OperationError as error:
        yield Finding("account", "wrong", str(error))
        return
    yield Finding("account", "ok", f"{caller.account} in {account.region}, as {caller.arn}")
    for subject, check in account_checks.CHECKS.items():
        bound = partial(check, account, caller, name, parameters)
        yield from _from_account(subject, bound)


def _from_account(
    subject: str, check: Callable[[], Iterator[tuple[State, str]]]
) -> Iterator[Finding]:
    """A right that is missing for a check alone is no reason against a deploy."""
    try:
        with explained(subject):
            for state, text in check():
                yield Finding(subject, state, text)
    except OperationError as error:
        reason = str(error).removeprefix(f"{subject}: ")
        yield Finding(subject, "warning", f"not checked: {reason}")
