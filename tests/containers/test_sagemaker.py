"""The image that SageMaker starts, made of the CPU's (and of the GPU's, if GPU_IMAGE names one), as
SageMaker runs it: without a network, by `serve`, with the bundle below /opt/ml/model."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from containers import test_images
from containers.engine import docker
from containers.test_images import Image, until
from feedops.workspace import PROJECT
from feedrank.bundle.layout import MANIFEST
from stack.transform import resolved, template

REQUEST = {"user_id": 42, "item_ids": [17, 256, 3]}
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793"
KILLED_S = 30
CALL = f"""
import json, sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen
headers = {{"X-Amzn-SageMaker-Custom-Attributes": "{TRACE}"}}
url = "http://127.0.0.1:8080" + sys.argv[1]
try:
    response = urlopen(Request(url, sys.stdin.buffer.read() or None, headers), timeout=60)
except HTTPError as error:
    response = error
attributes = response.headers["x-amzn-sagemaker-custom-attributes"]
print(json.dumps([response.status, attributes, json.loads(response.read())]))
"""
image, bundle = test_images.image, test_images.bundle


class Answer(NamedTuple):
    status: int
    attributes: str
    body: dict[str, Any]


def variables(bundle: Path) -> dict[str, str]:
    """The template's, for this bundle."""
    digest = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    parameters = {
        "ModelUri": f"s3://bundles/feed/ranker/sha256-{digest}",
        "ImageDigest": f"sha256:{'ef' * 32}",
    }
    resources = resolved(template("infra/images/sagemaker.yaml"), **parameters)["Resources"]
    environment: dict[str, str] = resources["Model"]["Properties"]["PrimaryContainer"][
        "Environment"
    ]
    return environment


@pytest.fixture(scope="module")
def container(image: Image, bundle: Path) -> Iterator[str]:
    tag = f"feedrank-sagemaker-{image.name}"
    directory = PROJECT / "infra" / "images" / "sagemaker"
    docker("build", "--build-arg", f"IMAGE={image.tag}", "--tag", tag, str(directory))
    given = variables(bundle) | {"MODEL_ENGINE": "torch" if image.name == "gpu" else "onnx"}
    settings = [f"--env={name}={value}" for name, value in given.items()]
    volume = ("--volume", f"{bundle}:/opt/ml/model:ro")
    started = docker("run", "--detach", "--network", "none", *settings, *volume, tag, "serve")
    try:
        yield started
    finally:
        docker("rm", "--force", started)
        docker("rmi", tag)


def call(container: str, path: str, body: object = None) -> Answer:
    content = json.dumps(body) if body else ""
    command = ("exec", "--interactive", container, "python", "-c", CALL, path)
    return Answer(*json.loads(docker(*command, content=content)))


def test_it_is_pinged_invoked_and_stopped(container: str) -> None:
    until(lambda: call(container, "/ping").status == 200)
    answer = call(container, "/invocations", REQUEST)
    assert (answer.status, answer.attributes) == (200, TRACE)
    items = [prediction["item_id"] for prediction in answer.body["predictions"]]
    assert sorted(items) == sorted(REQUEST["item_ids"])
    docker("stop", "--time", str(KILLED_S), container)
    state = json.loads(docker("inspect", container))[0]["State"]
    assert (state["Running"], state["ExitCode"]) == (False, 0)
