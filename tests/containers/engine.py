"""The container engine that the tests of this directory run on, by Docker's command."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HOW_TO_GET_ONE = (
    "no container engine is running: install and start Docker, or Podman with Docker's command and "
    "`podman system service`, whose socket DOCKER_HOST names"
)


def docker(*arguments: str, content: str = "") -> str:
    process = subprocess.run(
        ["docker", *arguments], input=content, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def is_running() -> bool:
    return shutil.which("docker") is not None and _succeeds("info")


def has(image: str) -> bool:
    return _succeeds("image", "inspect", image)


def base_of(dockerfile: Path) -> str:
    """Its base image by the digest or, where no registry can be reached, one that is here by the
    name and tag before the digest. Without either the test is skipped."""
    (pinned,) = re.findall(r"^ARG BASE=(.+)$", dockerfile.read_text(), re.MULTILINE)
    if has(pinned) or _succeeds("pull", "--quiet", pinned):
        return pinned
    named = pinned.partition("@")[0]
    if not has(named):
        pytest.skip(f"{named} is not here and can't be pulled; BASE_IMAGE names another base")
    return named


def _succeeds(*arguments: str) -> bool:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0
