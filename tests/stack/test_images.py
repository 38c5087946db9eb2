"""The container images can't be built here; what they copy can be looked for."""

import re

import pytest

from feedops.workspace import PROJECT


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_what_an_image_copies_is_there(image: str) -> None:
    text = (PROJECT / "infra" / "images" / image / "Dockerfile").read_text()
    sources = [
        source
        for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "function/handler.py" in sources
    assert [source for source in sources if not (PROJECT / source).exists()] == []


def test_what_an_image_installs_by_name_is_pinned() -> None:
    lock = (PROJECT / "requirements-dev.lock").read_text()
    for name in ("boto3", "httptools", "uvicorn", "uvloop", "torch", "awslambdaric"):
        assert re.search(rf"^{name}==", lock, re.MULTILINE)
