"""CI is green only where every test ran."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FIXTURE = """
import pytest

@pytest.fixture
def tool():
    pytest.skip("no such tool")

def test_by_a_fixture(tool): ...
"""
CALL = """
import pytest

def test_by_itself():
    pytest.skip("no such tool")
"""
XFAIL = """
import pytest

@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""
SUBSTITUTED = """
import pytest

@pytest.mark.substituted_by("tests/unit/test_docs_page.py")
def test_with_a_browser():
    pytest.skip("no such tool")
"""


def run(
    directory: Path, test: str, ci: str, config: str | Path = os.devnull
) -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text(test)
    environ = os.environ | {"CI": ci, "PYTHONPATH": str(TESTS)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no_skips", "-c", config, "test_it.py"],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("test", [FIXTURE, CALL], ids=["fixture", "call"])
def test_what_would_be_skipped_fails_in_ci_with_its_reason(tmp_path: Path, test: str) -> None:
    process = run(tmp_path, test, "true")
    assert process.returncode == 1
    assert "CI skips nothing. Skipped: no such tool" in process.stdout.splitlines()


@pytest.mark.parametrize(("test", "ci"), [(FIXTURE, ""), (CALL, ""), (XFAIL, "true")])
def test_elsewhere_it_is_skipped_and_an_expected_failure_stays_one(
    tmp_path: Path, test: str, ci: str
) -> None:
    assert run(tmp_path, test, ci).returncode == 0


def test_what_others_stand_in_for_may_be_skipped_in_ci(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = substituted_by: ...\n")
    process = run(tmp_path, SUBSTITUTED, "true", tmp_path / "pytest.ini")
    assert (process.returncode, "1 skipped" in process.stdout) == (0, True)


def test_what_stands_in_for_a_test_is_there() -> None:
    named = re.compile(r"substituted_by\(\"(tests/[^\"]+)\"\)")
    substitutes = {
        name for path in TESTS.rglob("test_*.py") for name in named.findall(path.read_text())
    }
    assert substitutes
    assert [name for name in substitutes if not (TESTS.parent / name).is_file()] == []
