"""The Makefile has a wrapper for every command, and the environments that they need."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from containers.engine import HOW_TO_GET_ONE
from feedbench.cli import app
from feedbench.load.drive import LOCUST

PROJECT = Path(__file__).parents[2]
MAKEFILE = (PROJECT / "Makefile").read_text()
RULES = {
    match["target"]: match
    for match in re.finditer(
        r"^(?P<target>[\w./$()-]+):(?!=)(?P<needs>[^\n]*)\n(?P<recipe>(?:\t.*\n)*)",
        MAKEFILE,
        re.MULTILINE,
    )
}


def test_every_command_has_a_target() -> None:
    commands = {str(c.callback.__name__) for c in app.registered_commands if c.callback}
    assert commands - set(RULES) == set()


def test_every_target_that_is_not_a_file_is_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert {t for t in RULES if re.fullmatch(r"[a-z-]+", t)} == set(phony.split())


@pytest.mark.parametrize(
    "module",
    re.findall(r"(?:-m|from) (feed[\w.]+)", MAKEFILE + (PROJECT / ".ci" / "lock").read_text()),
)
def test_every_module_that_a_recipe_or_the_lock_runs_exists(module: str) -> None:
    assert find_spec(module)


def test_a_load_needs_no_competitor() -> None:
    needs = RULES["load"]["needs"]
    assert f"{LOCUST.parents[1].name}/.ready" in needs
    assert ".venv-bench" not in needs


def test_every_installation_is_announced() -> None:
    install = re.compile(r"\$\((?:PIP|LOCKED|call locked_with_torch\b.*)\)")
    installing = [rule["recipe"] for rule in RULES.values() if install.search(rule["recipe"])]
    assert len(installing) == 5
    for recipe in installing:
        assert "@echo" in install.split(recipe)[0]


def test_the_tests_in_containers_say_in_a_line_how_to_get_an_engine() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/containers"],
        cwd=PROJECT,
        env=os.environ | {"DOCKER_HOST": "unix:///nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.strip() == f"Exit: {HOW_TO_GET_ONE}"
