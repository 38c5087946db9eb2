"""`pip install .`: the wheel has every package whole, and its command says what it can't do."""

import os
import shutil
import subprocess
import sys
import tomllib
from email import message_from_string
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGES = (
    *("function/feedrank", "layers/model/feedmodel"),
    *("infra/feedops", "infra/feedbench"),
)
CODE = {".py", ".html", ".j2", ".lua", ".toml"}
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def tracked(*paths: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    listed = subprocess.check_output(command, cwd=PROJECT, text=True).split()
    return [path for path in listed if (PROJECT / path).is_file()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the wheel is installed into. It is built from a copy of the checkout,
    where setuptools leaves its own directories."""
    directory = tmp_path_factory.mktemp("wheel")
    for path in (*tracked(*PACKAGES), "pyproject.toml", "README.md", "LICENSE"):
        (directory / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / path, directory / "source" / path)
    wheels, site = directory / "wheels", directory / "site"
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, "."]
    subprocess.run([*PIP, *build], cwd=directory / "source", check=True)
    (wheel,) = wheels.iterdir()
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True)
    return site


def command(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed `feedrank`, away from the checkout."""
    return subprocess.run(
        [installed / "bin/feedrank", *arguments],
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def needs(path: Path) -> bool:
    """Of a package's own files: all that the function reads, elsewhere the code alone."""
    return path.suffix in CODE or (path.parts[0] == "feedrank" and path.suffix != ".pyc")


def test_the_wheel_has_every_file_of_the_packages_and_no_other(installed: Path) -> None:
    files = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    roots = {package: Path(package).parent for package in PACKAGES}
    expected = {
        Path(path).relative_to(root) for package, root in roots.items() for path in tracked(package)
    }
    assert {path for path in files if needs(path)} == {path for path in expected if needs(path)}


def test_its_metadata_says_what_it_needs_and_what_it_runs_on(installed: Path) -> None:
    (metadata,) = installed.glob("feedrank-*.dist-info/METADATA")
    headers = message_from_string(metadata.read_text())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert headers.get_all("Classifier") == project["classifiers"]
    assert headers["Requires-Python"] == project["requires-python"]
    assert headers["License-Expression"] == project["license"]
    requirements = [each for each in headers.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert len(requirements) == len(project["dependencies"])


@pytest.mark.parametrize("name", ["serve", "run", "build", "bench", "load"])
def test_what_needs_the_checkout_says_so_in_a_line(installed: Path, name: str) -> None:
    result = command(installed, name)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"feedrank {name} needs the project's checkout")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["train", "--help"]])
def test_help_needs_no_checkout(installed: Path, arguments: list[str]) -> None:
    assert command(installed, *arguments).returncode == 0


def test_training_needs_no_checkout(installed: Path) -> None:
    result = command(installed, "train", "--users", "1")
    assert (result.returncode, result.stderr) == (1, "users must be at least 10, not 1\n")
