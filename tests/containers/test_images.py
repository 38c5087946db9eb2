"""The container images, built and run: `make test-containers`, which needs Docker (or Podman behind
its command). CPU_IMAGE and GPU_IMAGE name images that are built already; the GPU's, of 4 GB, is
tested only then. BASE_IMAGE replaces the Dockerfile's base image."""

import asyncio
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import pytest
from packaging.utils import canonicalize_name

from containers.engine import base_of, docker
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.stack import sbom
from feedops.workspace import EVENTS, PROJECT
from feedrank.bundle.layout import GOLDEN
from stack.hook import load_canary

LONGEST_S = 120
TMP = "/tmp"  # the container's, and where its user can read what is ours
WITHOUT_RIGHTS = (
    "--read-only", "--tmpfs", TMP, "--cap-drop", "ALL", "--network", "none",
    "--security-opt", "no-new-privileges", "--cpus", "1",
)  # fmt: skip
MEMORY = {"cpu": "512m", "gpu": "3g"}
MOST_BYTES = {"cpu": 350_000_000, "gpu": 4_000_000_000}
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
PROGRAMS = """
import os
places = "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"
print(*(name for place in places if os.path.isdir(place) for name in os.listdir(place)))
"""
NOT_COMPILED = """
import sys, pathlib
from importlib.util import cache_from_source
roots = "/var/task", f"/usr/local/lib/python3.{sys.version_info.minor}"
files = [file for root in roots for file in pathlib.Path(root).rglob("*.py")]
print(len(files), *(f for f in files if not pathlib.Path(cache_from_source(str(f))).exists()))
"""
USER = """
import os, stat
print(os.getuid(), os.getgid())
for place, directories, files in os.walk("/"):
    directories[:] = [d for d in directories if not os.path.ismount(os.path.join(place, d))]
    for name in directories + files:
        status = os.lstat(os.path.join(place, name))
        is_open = status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
        if is_open or status.st_uid or status.st_gid:
            print(os.path.join(place, name))
"""
DEBIAN = """
import os
print(*sorted(os.listdir("/var/lib/dpkg/status.d")))
root = "/usr/share/doc"
print(*sorted(name for name in os.listdir(root) if os.path.getsize(f"{root}/{name}/copyright")))
"""
# botocore asks these services for credentials, of a web identity or of a login.
CREDENTIALS = """
from botocore.session import Session
for name in ("sts", "sso", "sso-oidc"):
    print(Session().create_client(name, "eu-central-1").meta.endpoint_url)
"""
# The last line says what torch has without a GPU.
CUDA = """
import ctypes, pathlib, torch
packages = pathlib.Path(torch.__file__).parents[1]
files = [*packages.glob("nvidia/**/*.so*"), *packages.glob("torch/lib/*.so*")]
print(*(f.name for f in files if f.name != "libcaffe2_nvrtc.so" and ctypes.CDLL(str(f))))
print(torch.version.cuda is not None, torch.backends.cudnn.version() > 0, torch.cuda.is_available())
print(float(torch.linalg.inv(torch.eye(3)).sum()))
"""


class Image(NamedTuple):
    name: str  # of its directory
    tag: str

    def server(self, *flags: str) -> tuple[str, ...]:
        """The arguments that start the server in it."""
        options = ("feedrank.server", *(flags or ("--host", "127.0.0.1", "--port", "8080")))
        return options if self.name == "gpu" else ("python", "-m", *options)

    def run(self, code: str) -> list[str]:
        """The lines that Python code prints there."""
        flags = ("--rm", *WITHOUT_RIGHTS, "--memory", MEMORY[self.name], "--entrypoint", "python")
        return docker("run", *flags, self.tag, "-c", code).splitlines()


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


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def image(request: pytest.FixtureRequest) -> Image:
    name: str = request.param
    tag = os.environ.get(f"{name.upper()}_IMAGE")
    if not tag and name == "gpu":
        pytest.skip("GPU_IMAGE names no image that was built of infra/images/gpu")
    if not tag:
        tag = "feedrank-cpu"
        dockerfile = PROJECT / "infra" / "images" / name / "Dockerfile"
        base = os.environ.get("BASE_IMAGE") or base_of(dockerfile)
        flags = ("--build-arg", f"BASE={base}")
        docker("build", *flags, "--file", str(dockerfile), "--tag", tag, str(PROJECT))
    return Image(name, tag)


@pytest.fixture(scope="module")
def bundle(demo_bundle: Path) -> Iterator[Path]:
    """Where a container's user can read it."""
    bundle = Path(TMP, f"feedrank-{uuid.uuid4().hex}")
    shutil.copytree(demo_bundle, bundle)
    for path in (bundle, *bundle.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield bundle
    shutil.rmtree(bundle)


@contextmanager
def started(image: Image, bundle: Path, *flags: str, server: tuple[str, ...] = ()) -> Iterator[str]:
    """The server, without a right that it doesn't need."""
    flags = (*WITHOUT_RIGHTS, "--memory", MEMORY[image.name], *flags)
    volume = ("--volume", f"{bundle}:/opt/model:ro")
    identifier = docker("run", "--detach", *flags, *volume, image.tag, *image.server(*server))
    try:
        yield identifier
    finally:
        docker("rm", "--force", identifier)


@pytest.fixture(scope="module")
def container(image: Image, bundle: Path) -> Iterator[Container]:
    with started(image, bundle) as identifier:
        container = Container(identifier, bundle)
        until(lambda: container.ask("/ready") == {"status": "ok"})
        yield container


def until(is_so: Callable[[], bool]) -> None:
    """An error counts as not yet."""
    until_s = monotonic() + LONGEST_S
    while True:
        try:
            assert is_so()
        except (AssertionError, OSError):
            if monotonic() > until_s:
                raise
            sleep(0.1)
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


def test_it_ranks_as_the_function_does_in_lambdas_emulator(
    image: Image, container: Container, tmp_path: Path
) -> None:
    context = {"device": "mobile", "timestamp": "2026-11-22T20:15:00Z"}
    body = {"user_id": 42, "item_ids": [17, 256, 3, 299, 88], "context": context}
    event = json.loads((EVENTS / "predict.json").read_bytes()) | {"body": json.dumps(body)}

    async def invoke() -> bytes:
        function = Function(PROJECT / "function", {"MODEL_URI": str(container.bundle)})
        files = {"log": tmp_path / "log", "temporary": tmp_path / "tmp"}
        environment = await ExecutionEnvironment.start(function, **files)
        try:
            return await environment.invoke(json.dumps(event).encode())
        finally:
            await environment.stop()

    expected = json.loads(json.loads(asyncio.run(invoke()))["body"])
    ranking = container.ask("/predict", body)
    assert ranking.keys() == expected.keys()
    assert ranking["model_digest"] == expected["model_digest"]
    apart = 1e-5 if image.name == "gpu" else 0  # of PyTorch, which rounds elsewhere
    assert ranking["predictions"] == [
        each | {"score": pytest.approx(each["score"], abs=apart, rel=0)}
        for each in expected["predictions"]
    ]
    assert len({each["score"] for each in ranking["predictions"]}) == len(body["item_ids"])


def test_it_is_healthy_for_the_engine_too(image: Image, container: Container) -> None:
    config = json.loads(docker("inspect", container.id))[0]["Config"]
    if image.name == "cpu":
        kind, *command = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        container.exec(*command)
    assert container.ask("/health")["status"] == "healthy"


def test_its_user_is_not_root_and_owns_nothing(image: Image, container: Container) -> None:
    """Kubernetes reads from a number alone that it is not root."""
    assert json.loads(docker("inspect", image.tag))[0]["Config"]["User"] == "1000:1000"
    assert container.exec("python", "-c", USER).splitlines() == ["1000 1000"]


def test_a_request_that_has_begun_gets_its_response_after_sigterm(
    image: Image, bundle: Path
) -> None:
    """Through a socket in a shared directory, which stays when the container has ended."""
    body = json.dumps({"user_id": 42, "item_ids": [17, 256, 3]}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    directory = Path(TMP, f"feedrank-{uuid.uuid4().hex}")
    directory.mkdir()
    directory.chmod(0o777)
    path, volume = str(directory / "socket"), ("--volume", f"{directory}:/sockets")
    try:
        with started(image, bundle, *volume, server=("--uds", "/sockets/socket")) as identifier:
            until(lambda: connected(path).close() is None)
            with connected(path) as connection:
                connection.sendall(head + body[:10])
                docker("kill", "--signal", "TERM", identifier)
                until(lambda: refuses(path))
                connection.sendall(body[10:])
                response = b"".join(iter(lambda: connection.recv(65_536), b""))
            assert response.startswith(b"HTTP/1.1 200 ")
            ranking = json.loads(response.partition(b"\r\n\r\n")[2])
            assert {item["item_id"] for item in ranking["predictions"]} == {17, 256, 3}
            assert docker("wait", identifier) == "0"
    finally:
        shutil.rmtree(directory)


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LONGEST_S)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def refuses(path: str) -> bool:
    with suppress(ConnectionRefusedError, FileNotFoundError):
        connected(path).close()
        return False
    return True


def test_it_has_python_and_no_other_program(container: Container) -> None:
    names = container.exec("python", "-c", PROGRAMS)
    minor = sbom.LINUX["python_full_version"].rpartition(".")[0]
    assert set(names.split()) == {"python", "python3", f"python{minor}"}
    with pytest.raises(AssertionError, match=r"(?i)no such file|not found"):
        container.exec("sh", "-c", "true")


def test_all_of_its_modules_are_compiled(image: Image) -> None:
    """A read-only file system keeps what a start compiles for no other start."""
    ((count, *files),) = (line.split() for line in image.run(NOT_COMPILED))
    assert int(count) > 1_000
    assert files == []


def test_its_size_is_within_its_budget(image: Image) -> None:
    size = json.loads(docker("inspect", image.tag))[0]["Size"]
    assert 100_000_000 < size <= MOST_BYTES[image.name]


def test_botocore_knows_the_services_that_give_credentials(image: Image) -> None:
    assert image.run(CREDENTIALS) == [
        "https://sts.eu-central-1.amazonaws.com",
        "https://portal.sso.eu-central-1.amazonaws.com",
        "https://oidc.eu-central-1.amazonaws.com",
    ]


def test_every_library_of_cuda_opens_without_a_gpu(image: Image) -> None:
    """So none lacks another one; `libcaffe2_nvrtc.so` needs the driver's."""
    if image.name == "cpu":
        return
    libraries, has, inverse = image.run(CUDA)
    assert {"libtorch_cuda.so", "libtorch_cuda_linalg.so", "libcusolver.so.12"} < {
        *libraries.split()
    }
    assert (has, inverse) == ("True True False", "3.0")


@pytest.fixture(scope="module")
def packages(image: Image) -> dict[str, dict[str, Any]]:
    """Metadata of what is installed in it, by name."""
    installed: dict[str, dict[str, Any]] = json.loads(image.run(PACKAGES)[-1])
    return {canonicalize_name(name): metadata for name, metadata in installed.items()}


def test_it_has_the_packages_of_its_bill_of_materials(
    image: Image, packages: dict[str, dict[str, Any]]
) -> None:
    """No pip, then, and nothing else that builds packages."""
    listed = {part.name: part.version for part in sbom.image(image.name).components}
    assert {name: metadata["version"] for name, metadata in packages.items()} == listed


def test_debians_packages_have_their_records_and_licences(image: Image) -> None:
    """A scanner finds known vulnerabilities by the records."""
    records, licences = image.run(DEBIAN)
    assert records == licences
    assert {"base-files", "ca-certificates", "libc6", "libstdc++6"} < {*records.split()}


def test_its_licences_are_the_listed_ones(packages: dict[str, dict[str, Any]]) -> None:
    rows = re.findall(r"^\| (\S+) \S+ \| (.+) \|$", "".join(sbom.tables().values()), re.MULTILINE)
    listed = {name: licence for name, licence in rows if name in packages}
    assert listed.keys() == packages.keys()
    assert {name: sbom.licence_of(packages[name]) for name in listed} == listed
