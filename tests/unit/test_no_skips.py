"""CI is green only where every test ran."""

import os
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


def run(folder: Path, test: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(test)
    environ = os.environ | {"CI": ci, "PYTHONPATH": str(TESTS)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no_skips", "-c", os.devnull, "test_it.py"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("test", [FIXTURE, CALL], ids=["fixture", "call"])
def test_what_would_be_skipped_fails_in_ci_with_its_reason(tmp_path: Path, test: str) -> None:
    done = run(tmp_path, test, "true")
    assert done.returncode == 1
    assert "CI skips nothing. Skipped: no such tool" in done.stdout.splitlines()


@pytest.mark.parametrize(("test", "ci"), [(FIXTURE, ""), (CALL, ""), (XFAIL, "true")])
def test_elsewhere_it_is_skipped_and_an_expected_failure_stays_one(
    tmp_path: Path, test: str, ci: str
) -> None:
    assert run(tmp_path, test, ci).returncode == 0
