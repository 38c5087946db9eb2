"""The errors of `make build`, and the sizes of `feedrank budget`."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from feedops.errors import BuildError, OverBudgetError
from feedops.stack.budget import BAR_BYTES, Budget, measure, print_budget
from feedops.stack.build import build, find_python

PYTHON = "#!/bin/sh\necho Python 3.13.9\n"
OTHER_PYTHON = "#!/bin/sh\necho Python 3.12.1\n"
SHIM = "#!/bin/sh\necho 'python3.13: command not found' >&2\nexit 127\n"  # inactive version


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def _file(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def test_a_missing_bundle_is_reported_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="feedrank publish --to layers/model/bundle"):
        build(tmp_path / "build", tmp_path / "bundle")
    assert not (tmp_path / "build").exists()


def test_the_python_of_lambda_is_found_on_the_path(tmp_path: Path) -> None:
    python = _program(tmp_path / "bin" / "python3.13", PYTHON)
    assert find_python({"PATH": str(python.parent), "HOME": "/nowhere"}) == python


def test_a_shim_of_an_inactive_version_is_skipped(tmp_path: Path) -> None:
    shim = _program(tmp_path / "shims" / "python3.13", SHIM)
    python = _program(tmp_path / ".pyenv/versions/3.13.0/bin/python3.13", PYTHON)
    assert find_python({"PATH": str(shim.parent), "HOME": str(tmp_path)}) == python


def test_without_a_python_the_message_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="set LAMBDA_PYTHON"):
        find_python({"PATH": str(tmp_path), "HOME": str(tmp_path)})


def test_the_python_of_the_setting_must_have_the_right_version(tmp_path: Path) -> None:
    python = _program(tmp_path / "python", OTHER_PYTHON)
    with pytest.raises(BuildError, match=r"is no python3\.13"):
        find_python({"LAMBDA_PYTHON": str(python)})


@pytest.fixture
def built(tmp_path: Path) -> Path:
    site = tmp_path / "RuntimeLayer" / "python"
    _file(tmp_path / "Function" / "handler.py", 1_000)
    _file(tmp_path / "ModelLayer" / "model" / "serving" / "model.onnx", 2_000)
    _file(site / "numpy" / "core.so", 3_000_000)
    _file(site / "numpy.libs" / "blas.so", 2_000_000)
    _file(site / "numpy-2.4.6.dist-info" / "METADATA", 10)
    _file(site / "google" / "protobuf.py", 20)
    _file(site / "protobuf-7.36.2.dist-info" / "METADATA", 5)
    _file(site / "typing_extensions.py", 7)
    return tmp_path


def test_sizes_are_by_part_and_by_distribution(built: Path) -> None:
    assert measure(built) == Budget(
        parts={"function": 1_000, "runtime layer": 5_000_042, "model layer": 2_000},
        dependencies={"numpy 2.4.6": 5_000_010, "protobuf 7.36.2": 25, "typing_extensions": 7},
    )


def test_the_table_has_large_packages_the_bar_and_the_limit(built: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_budget(measure(built), console)
    table = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("numpy 2.4.6", "2 smaller ones", "total", "200.0", "262.1"):
        assert text in table


def test_over_the_bar_is_an_error() -> None:
    parts = {"function": BAR_BYTES - 1_000, "runtime layer": 1_500_000, "model layer": 0}
    with pytest.raises(OverBudgetError, match=r"1\.5 MB over the bar"):
        print_budget(Budget(parts, {}), Console(quiet=True))


def test_a_missing_build_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="make build"):
        measure(tmp_path)
