"""`sam build` without Docker, with Lambda's Python version; writes only below .aws-sam."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from feedops.errors import BuildError
from feedops.workspace import PROJECT
from feedrank.bundle.layout import MANIFEST

LAMBDA_PYTHON = "python3.13"
# What Lambda provides: the SDK's two packages, the runtime client, and their dependencies.
RUNTIME_PACKAGES = (
    *("awslambdaric", "simplejson", "snapshot-restore-py"),
    *("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"),
)
LOCK = PROJECT / "requirements-dev.lock"
STATE = PROJECT / ".aws-sam"
BUILD = STATE / "build"
BUNDLE = PROJECT / "layers" / "model" / "bundle"
Architecture = Literal["x86_64", "arm64"]


def build(
    directory: Path = BUILD, bundle: Path = BUNDLE, architecture: Architecture = "x86_64"
) -> None:
    """Build function and layers into `directory`, with `bundle` in the model layer. Lists of their
    contents and of the images' (CycloneDX) go to `sbom` beside it. Raises BuildError."""
    if not (bundle / MANIFEST).is_file():
        raise BuildError(
            f"no bundle in {bundle}\nwrite one with: feedrank publish --to layers/model/bundle"
        )
    run_sam_build(PROJECT / "template.yaml", directory, architecture, bundle)
    from feedops.stack.sbom import write_boms

    write_boms(directory, directory.absolute().parent / "sbom")


def run_sam_build(
    template: Path, directory: Path, architecture: Architecture, bundle: Path = BUNDLE
) -> None:
    """`sam build` of `template` into `directory`. Raises BuildError with what it printed."""
    python = find_python(os.environ)
    state = directory.absolute().parent
    environ = {
        "PIP_CACHE_DIR": str(state / "pip"),
        "AWS_DEFAULT_REGION": "us-east-1",  # SAM requires one, and makes no request
        **os.environ,
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
        "LAMBDA_PYTHON": str(python),
        "BUNDLE": str(bundle.absolute()),
        "ARCHITECTURE": architecture,
        "SAM_CLI_TELEMETRY": "0",
        "__SAM_CLI_APP_DIR": str(state / "home"),  # instead of ~/.aws-sam
    }
    command = [
        *(sys.executable, "-m", "samcli", "build", "--no-cached"),
        *("--template-file", str(template), "--build-dir", str(directory.absolute())),
        *("--config-file", str(PROJECT / "samconfig.toml")),
        *("--parameter-overrides", f"Architecture={architecture}"),
    ]
    state.mkdir(parents=True, exist_ok=True)
    process = subprocess.run(
        command,
        env=environ,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if process.returncode:
        raise BuildError(f"sam build failed, with exit code {process.returncode}\n{process.stdout}")


def runtime_packages(python: Path) -> Path:
    """A directory with RUNTIME_PACKAGES, which Lambda provides and no layer has; made once."""
    locked = locked_packages(LOCK, RUNTIME_PACKAGES)
    directory = STATE / "runtime" / hashlib.sha256(locked.encode()).hexdigest()[:16]
    if not directory.is_dir():
        partial = directory.with_name(f"{directory.name}.partial")  # renamed once it is complete
        shutil.rmtree(partial, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        requirements = directory.with_suffix(".txt")
        requirements.write_text(locked)
        options = ["--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        pinned = ["--require-hashes", "--no-deps", "--requirement", str(requirements)]
        subprocess.run(
            [python, "-m", "pip", "install", *options, "--target", partial, *pinned], check=True
        )
        partial.rename(directory)
    return directory


def locked_packages(lock: Path, names: Iterable[str]) -> str:
    """The lock file's lines for these packages, with their hashes."""
    requirements = {
        requirement.partition("==")[0]: requirement
        for requirement in re.split(r"\n(?=[^\s#])", lock.read_text())
    }
    return "".join(f"{requirements[name]}\n" for name in names)


def find_python(environ: Mapping[str, str]) -> Path:
    """LAMBDA_PYTHON, or a python3.13 on the PATH or of pyenv or uv. Raises BuildError."""
    setting = environ.get("LAMBDA_PYTHON")
    for candidate in [Path(setting)] if setting else _candidates(environ):
        if _is_lambda_python(candidate):
            return candidate.absolute()
    raise BuildError(
        f"{setting} is no {LAMBDA_PYTHON}"
        if setting
        else f"no {LAMBDA_PYTHON} was found: the build needs the version that Lambda runs\n"
        "install one (uv python install 3.13, or pyenv install 3.13), or set LAMBDA_PYTHON"
    )


def _candidates(environ: Mapping[str, str]) -> Iterable[Path]:
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        yield Path(directory, LAMBDA_PYTHON)
    home = Path(environ.get("HOME", "/nonexistent"))
    yield from sorted(home.glob(f".pyenv/versions/3.13*/bin/{LAMBDA_PYTHON}"))
    yield from sorted(home.glob(f".local/share/uv/python/cpython-3.13*/bin/{LAMBDA_PYTHON}"))


def _is_lambda_python(candidate: Path) -> bool:
    """Runs it, because pyenv has shims for versions that are not active."""
    try:
        version = subprocess.check_output([candidate, "--version"], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return False
    return version.startswith(b"Python 3.13.")
