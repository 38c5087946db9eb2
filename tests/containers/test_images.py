"""The container images, built and run: `make test-containers`, which needs Docker (or Podman behind
its command). CPU_IMAGE and GPU_IMAGE name images that are built already; the GPU's, of 5.5 GB, is
tested only then."""

import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import pytest
from packaging.utils import canonicalize_name

from feedops.stack import sbom
from feedops.workspace import PROJECT
from feedrank.bundle.layout import GOLDEN
from stack.hook import load_canary

LONGEST_START_S = 120
TMP = "/tmp"  # the container's, and where its user can read what is ours
WITHOUT_RIGHTS = (
    "--read-only", "--tmpfs", TMP, "--cap-drop", "ALL", "--network", "none",
    "--security-opt", "no-new-privileges",
)  # fmt: skip
PACKAGES = """
import json
from importlib.metadata import distributions
print(json.dumps({d.name: d.metadata.json for d in distributions()}))
"""
ASK = """
import sys
from urllib.request import Request, urlopen
body = sys.stdin.buffer.read()
sys.stdout.buffer.write(urlopen(Request(sys.argv[1], body or None), timeout=60).read())
"""
OF_THE_BASE_IMAGE = {"pip"}


class Image(NamedTuple):
    name: str  # of its directory
    tag: str

    @property
    def server(self) -> tuple[str, ...]:
        """The arguments that start the server in it."""
        options = ("feedrank.server", "--host", "127.0.0.1", "--port", "8080")
        return options if self.name == "gpu" else ("python", "-m", *options)


class Container(NamedTuple):
    id: str
    bundle: Path

    def exec(self, *command: str, content: str = "") -> str:
        return docker("exec", "--interactive", self.id, *command, content=content)

    def ask(self, path: str, body: object = None) -> Any:
        """From within: it has no network but its own."""
        content = json.dumps(body) if body else ""
        return json.loads(
            self.exec("python", "-c", ASK, f"http://127.0.0.1:8080{path}", content=content)
        )


def docker(*arguments: str, content: str = "") -> str:
    process = subprocess.run(
        ["docker", *arguments], input=content, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def lacks_an_engine() -> bool:
    info = ["docker", "info"]
    return not shutil.which("docker") or bool(
        subprocess.run(info, capture_output=True, check=False).returncode
    )


if lacks_an_engine():
    pytest.skip(
        "there is no container engine: install Docker, or Podman with its own `docker`",
        allow_module_level=True,
    )


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def image(request: pytest.FixtureRequest) -> Image:
    name: str = request.param
    tag = os.environ.get(f"{name.upper()}_IMAGE")
    if not tag and name == "gpu":
        pytest.skip("GPU_IMAGE names no image that was built of infra/images/gpu")
    if not tag:
        tag = "feedrank-cpu"
        dockerfile = PROJECT / "infra" / "images" / name / "Dockerfile"
        docker("build", "--file", str(dockerfile), "--tag", tag, str(PROJECT))
    return Image(name, tag)


@pytest.fixture(scope="module")
def container(image: Image, demo_bundle: Path) -> Iterator[Container]:
    """The server, without a right that it doesn't need."""
    bundle = Path(TMP, f"feedrank-{uuid.uuid4().hex}")
    shutil.copytree(demo_bundle, bundle)
    for path in (bundle, *bundle.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    volume = ("--volume", f"{bundle}:/opt/model:ro")
    started = docker("run", "--detach", *WITHOUT_RIGHTS, *volume, image.tag, *image.server)
    container = Container(started, bundle)
    try:
        until_ready(container)
        yield container
    finally:
        docker("rm", "--force", started)
        shutil.rmtree(bundle)


def until_ready(container: Container) -> None:
    until_s = monotonic() + LONGEST_START_S
    while True:
        try:
            assert container.ask("/ready") == {"status": "ok"}
        except AssertionError:
            if monotonic() > until_s:
                raise
        else:
            return


def test_it_ranks_the_golden_requests_as_torch_did(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hook of a release, which sends them as a caller does."""
    canary = load_canary()

    def request(_: Any, _method: str, path: str, body: object = None) -> Any:
        return container.ask(path, body)

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(canary.FunctionVersion, "request", request)
    golden = json.loads((container.bundle / GOLDEN).read_bytes())["cases"]
    assert canary.judge("arn:version", str(container.bundle), "", "number") == len(golden) > 0


def test_it_is_healthy_for_the_engine_too(image: Image, container: Container) -> None:
    config = json.loads(docker("inspect", container.id))[0]["Config"]
    if image.name == "cpu":
        kind, *command = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        container.exec(*command)
    assert container.ask("/health")["status"] == "healthy"


def test_its_user_owns_nothing(container: Container) -> None:
    assert container.exec("id", "--user") != "0"
    with pytest.raises(AssertionError, match=r"Read-only file system|Permission denied"):
        container.exec("touch", "/var/task/feedrank/more.py")


@pytest.fixture(scope="module")
def packages(image: Image) -> dict[str, dict[str, Any]]:
    """Metadata of what is installed in it, by name."""
    code = docker("run", "--rm", "--entrypoint", "python", image.tag, "-c", PACKAGES)
    installed: dict[str, dict[str, Any]] = json.loads(code.splitlines()[-1])
    return {canonicalize_name(name): metadata for name, metadata in installed.items()}


def test_it_has_the_packages_of_its_bill_of_materials(
    image: Image, packages: dict[str, dict[str, Any]]
) -> None:
    listed = {part.name: part.version for part in sbom.image(image.name).components}
    installed = {name: metadata["version"] for name, metadata in packages.items()}
    assert {name: installed[name] for name in installed.keys() - OF_THE_BASE_IMAGE} == listed


def test_its_licences_are_the_listed_ones(packages: dict[str, dict[str, Any]]) -> None:
    rows = re.findall(r"^\| (\S+) \S+ \| (.+) \|$", "".join(sbom.tables().values()), re.MULTILINE)
    listed = {name: licence for name, licence in rows if name in packages}
    assert listed.keys() == packages.keys() - OF_THE_BASE_IMAGE
    assert {name: sbom.licence_of(packages[name]) for name in listed} == listed
