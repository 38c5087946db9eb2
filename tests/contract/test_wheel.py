"""`pip install .`: the wheel has every package whole, and says what it can't do."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGES = ("function/feedrank", "layers/model/feedmodel", "infra/feedops")
CODE = {".py", ".html", ".lua"}


def tracked(*paths: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    listed = subprocess.check_output(command, cwd=PROJECT, text=True).split()
    return [path for path in listed if (PROJECT / path).is_file()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` brings, in a folder. Built of a copy: setuptools leaves a trace."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in (*tracked(*PACKAGES), "pyproject.toml", "README.md", "LICENSE"):
        (folder / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / path, folder / "source" / path)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, "."],
        cwd=folder / "source",
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def command(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from feedbench.cli import main; main()", *arguments],
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_has_every_file_of_the_packages(installed: Path) -> None:
    found = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.suffix in CODE}
    roots = {package: str(Path(package).parent) for package in PACKAGES}
    assert found == {
        str(Path(path).relative_to(root))
        for package, root in roots.items()
        for path in tracked(package)
        if Path(path).suffix in CODE
    }


@pytest.mark.parametrize("name", ["serve", "run", "build", "bench", "load"])
def test_what_needs_the_checkout_says_so_in_a_line(installed: Path, name: str) -> None:
    done = command(installed, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"feedrank {name} needs the project's checkout")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["train", "--help"]])
def test_help_needs_no_checkout(installed: Path, arguments: list[str]) -> None:
    assert command(installed, *arguments).returncode == 0


def test_training_needs_none(installed: Path) -> None:
    done = command(installed, "train", "--users", "1")
    assert (done.returncode, done.stderr) == (1, "users must be at least 10, not 1\n")
