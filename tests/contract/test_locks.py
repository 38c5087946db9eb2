"""Every package is installed by hash, from a complete list."""

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FILES = subprocess.run(
    ["git", "ls-files"], cwd=PROJECT, check=True, capture_output=True, text=True
).stdout.splitlines()
LOCKS = [
    "infra/feedbench/competitors/requirements.txt",
    "infra/feedbench/load/requirements.txt",
    "infra/images/cpu/requirements.txt",
    "infra/images/gpu/requirements.txt",
    "infra/images/with/sdk.txt",
    "infra/images/with/torch.txt",
    "layers/runtime/requirements.txt",
    "requirements-dev.lock",
    "tests/feast_store/requirements.txt",
    "tests/stack/checkov.txt",
]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}(?= |$)")
PINNED = re.compile(r"[\w.-]+(\[[\w,]+\])?==[\w.]+( ?; [^#]+?)? ?(--hash|$)")
INSTALL = re.compile(r"pip install\b|\$\(PIP\) install\b|(?<=/)\$\((?=LOCKED)")
LOCKED = "--no-deps --require-hashes --requirement"


def _requirements(lock: str) -> list[str]:
    text = (PROJECT / lock).read_text().replace("\\\n", "")
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _pins(lock: str) -> dict[str, str]:
    pins = (line.split()[0].rstrip(";").partition("==") for line in _requirements(lock))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in pins}


def test_every_list_of_packages_is_checked_here() -> None:
    lists = {
        file
        for file in FILES
        if file.endswith((".lock", ".txt")) and re.search(r"^[\w.-]+==", _text(file), re.MULTILINE)
    }
    assert lists == set(LOCKS)


def _text(file: str) -> str:
    path = PROJECT / file
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_has_its_hashes(lock: str) -> None:
    requirements = _requirements(lock)
    assert requirements
    assert [line for line in requirements if not PINNED.match(line)] == []
    assert [line[:60] for line in requirements if not HASH.search(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_list_names_an_index(lock: str) -> None:
    assert not re.search(r"://|^-", "\n".join(_requirements(lock)), re.MULTILINE)


def test_torch_has_the_hashes_of_both_builds() -> None:
    """PyPI's build with CUDA, and PyTorch's own build for CPUs."""
    cpu_hashes = {line.split()[0] for line in _text(".ci/torch-cpu.sha256").splitlines()}
    assert len(cpu_hashes) == 6
    for lock in ("requirements-dev.lock", "infra/feedbench/competitors/requirements.txt"):
        (torch,) = (line for line in _requirements(lock) if line.startswith("torch=="))
        hashes = set(re.findall(r"sha256:(\w+)", torch))
        assert cpu_hashes < hashes


def test_the_lock_marks_packages_with_wheels_for_linux_only() -> None:
    (client,) = (
        line for line in _requirements("requirements-dev.lock") if line.startswith("awslambdaric")
    )
    assert "; sys_platform == 'linux' " in client


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_deployed_is_what_is_tested(lock: str) -> None:
    """checkov, Feast's SDK and the competitors are neither."""
    if lock in (LOCKS[0], LOCKS[1], *LOCKS[-2:]):
        return
    tested, pins = _pins("requirements-dev.lock"), _pins(lock)
    cuda = {name for name in pins if name.startswith("nvidia-")}
    windows = {"colorama"}
    assert {n: v for n, v in pins.items() if n not in cuda | windows} == {
        n: tested[n] for n in pins.keys() - cuda - windows
    }


def test_the_libraries_of_cuda_that_torch_needs_are_in_the_list_of_the_gpu_image() -> None:
    """They are what else it has, so `make` takes them from there, by hash."""
    image, tested = _pins("infra/images/gpu/requirements.txt"), _pins("requirements-dev.lock")
    cuda = image.keys() - tested.keys() - {"colorama"}
    assert len(cuda) > 12
    assert [name for name in cuda if not name.startswith("nvidia-")] == []
    makefile = _text("Makefile")
    assert r"'/^nvidia/,/[^\\]$$/p' infra/images/gpu/requirements.txt" in makefile
    assert re.findall(r"\$\(PIP\) install (?!--)", makefile) == []


def test_every_command_that_installs_a_list_requires_hashes() -> None:
    installers = [f for f in FILES if re.search(r"(Makefile|Dockerfile)$", f)]
    commands = [
        command.partition("\n")[0].replace("LOCKED)", LOCKED)
        for file in installers
        for command in INSTALL.split(_text(file).replace("\\\n", " "))[1:]
    ]
    list_commands = [command for command in commands if "--requirement" in command]
    assert len(list_commands) == 11
    assert [c for c in list_commands if "--require-hashes" not in c or "--no-deps" not in c] == []
