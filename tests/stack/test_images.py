"""The container images can't be built here, but their sources and lists can be checked."""

import re

import pytest

from feedops.workspace import PROJECT


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_everything_that_an_image_copies_exists(image: str) -> None:
    text = (PROJECT / "infra" / "images" / image / "Dockerfile").read_text()
    sources = [
        source
        for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    files = {source: [*PROJECT.glob(source)] for source in sources}
    assert PROJECT / "function" / "handler.py" in files["function/*.py"]
    assert [source for source, paths in files.items() if not paths] == []


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("cpu", ("boto3", "httptools", "uvicorn", "uvloop")),
        ("gpu", ("boto3", "httptools", "uvicorn", "uvloop", "torch", "awslambdaric")),
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


def test_both_images_have_the_same_base_image_pinned_by_digest() -> None:
    texts = [
        (PROJECT / "infra" / "images" / image / "Dockerfile").read_text()
        for image in ("cpu", "gpu")
    ]
    (base,) = {line for text in texts for line in re.findall(r"^FROM (.+)$", text, re.MULTILINE)}
    assert re.fullmatch(r"python:3\.13\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
