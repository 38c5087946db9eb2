"""The container images can't be built here, but their sources and lists can be checked."""

import re

import pytest

from feedops.stack.sbom import locked
from feedops.workspace import PROJECT


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_everything_that_an_image_copies_exists(image: str) -> None:
    text = (PROJECT / "infra" / "images" / image / "Dockerfile").read_text()
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    files = {source: [*PROJECT.glob(source)] for source in sources}
    assert PROJECT / "function" / "handler.py" in files["function/*.py"]
    assert [source for source, paths in files.items() if not paths] == []


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("cpu", ("botocore", "httptools", "uvicorn", "uvloop")),
        ("gpu", ("botocore", "httptools", "uvicorn", "uvloop", "torch", "awslambdaric")),
    ],
)
def test_an_image_installs_the_layers_list_and_its_own_list(
    image: str, names: tuple[str, ...]
) -> None:
    directory = PROJECT / "infra" / "images" / image
    copies = re.findall(
        r"^COPY (\S+) \S+\.txt$", (directory / "Dockerfile").read_text(), re.MULTILINE
    )
    own = f"infra/images/{image}/requirements.txt"
    assert copies == ["layers/runtime/requirements.txt", own]
    pins = re.findall(r"^([\w.-]+)==", (directory / "requirements.txt").read_text(), re.MULTILINE)
    assert set(names) - set(pins) == set()


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_no_list_has_what_compiles_or_builds(image: str) -> None:
    """Triton, which is a seventh of PyTorch with CUDA, compiles kernels for `torch.compile`."""
    pins = {name for name, _ in locked(PROJECT / "infra" / "images" / image / "requirements.txt")}
    assert pins & {"pip", "setuptools", "wheel", "triton", "boto3"} == set()


def test_torch_for_a_cpu_image_is_the_gpu_images_without_cuda() -> None:
    """In PyTorch's own builds for CPUs, by their hashes alone: PyPI's has CUDA."""
    images = PROJECT / "infra" / "images"
    here = dict(locked(images / "with" / "torch.txt"))
    gpu, cpu = (dict(locked(images / name / "requirements.txt")) for name in ("gpu", "cpu"))
    client = {"awslambdaric", "simplejson", "snapshot-restore-py"}
    rest = gpu.keys() - cpu.keys() - client
    assert here == {name: gpu[name] for name in rest if not name.startswith("nvidia-")}
    hashes = (PROJECT / ".ci" / "torch-cpu.sha256").read_text().splitlines()
    text = (images / "with" / "torch.txt").read_text().replace("\\\n", "")
    (torch,) = re.findall(r"^torch==.*$", text, re.MULTILINE)
    assert re.findall(r"sha256:(\w+)", torch) == [line.split()[0] for line in hashes]


def test_both_images_have_the_same_base_image_pinned_by_digest() -> None:
    """An argument, so that a team may put its own."""
    texts = [
        (PROJECT / "infra" / "images" / image / "Dockerfile").read_text()
        for image in ("cpu", "gpu")
    ]
    bases = {base for text in texts for base in re.findall(r"^ARG BASE=(.+)$", text, re.MULTILINE)}
    (base,) = bases
    assert re.fullmatch(r"python:3\.13\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    stages = [re.findall(r"^FROM (.+)$", text, re.MULTILINE) for text in texts]
    assert stages == [["${BASE} AS build", "scratch"]] * 2
