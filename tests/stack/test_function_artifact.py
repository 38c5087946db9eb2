"""What function/Makefile copies from a directory of sources into Lambda's /var/task."""

import shutil
import subprocess
import sys
from pathlib import Path

from feedops.workspace import FUNCTION


def test_a_teams_own_modules_are_deployed_and_pages_are_not(tmp_path: Path) -> None:
    sources, artifacts = tmp_path / "function", tmp_path / "artifacts"
    for name in (
        "handler.py",
        "extensions.py",
        "rules/__init__.py",
        "rules/x.json",
        "EXTENDING.md",
        "feedrank/__init__.py",
        "notes/x.py",
    ):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).touch()
    shutil.copy(FUNCTION / "Makefile", sources)
    artifacts.mkdir()
    subprocess.run(
        [
            *("make", "--silent", "build-Function"),
            *(f"ARTIFACTS_DIR={artifacts}", f"LAMBDA_PYTHON={sys.executable}"),
        ],
        cwd=sources,
        check=True,
    )
    files = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert {name for name in files if not name.endswith(".pyc")} == {
        "handler.py",
        "extensions.py",
        "feedrank/__init__.py",
        "rules/__init__.py",
        "rules/x.json",
    }
    assert {Path(name).name.partition(".")[0] for name in files if name.endswith(".pyc")} == {
        "handler",
        "extensions",
        "__init__",
    }
