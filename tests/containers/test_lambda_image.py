"""The function as a container image: built by SAM, and run with the rights that Lambda gives it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from containers.answers import Answer, asked
from containers.engine import base_of, docker
from containers.sam import Handle, Sam
from feedops.local.emulator import find_emulator
from feedops.local.gateway import example_event
from feedops.stack import lambda_image
from feedops.stack.budget import BAR_BYTES
from feedops.workspace import EVENTS

REPOSITORY = "feedrank-lambda-test"  # a deploy takes what the product's own name means
USER = "993:990"  # Lambda's own, where a Dockerfile names none
AS_IN_LAMBDA = (
    "--read-only", "--tmpfs", "/tmp", "--user", USER, "--cap-drop", "ALL", "--network", "none",
    "--security-opt", "no-new-privileges", "--memory", "512m", "--cpus", "1",
)  # fmt: skip
INVOKE = """
import sys
from urllib.request import urlopen
url = "http://127.0.0.1:8080/2015-03-31/functions/function/invocations"
sys.stdout.buffer.write(urlopen(url, sys.stdin.buffer.read(), timeout=60).read())
"""
WRITE = """
import os, sys
print(os.getuid(), os.getgid())
for directory in ("/tmp", "/var/task", "/opt/python", "/opt/model"):
    try:
        open(f"{directory}/written", "w").close()
    except OSError as error:
        print(directory, error.strerror)
"""
EVENT_FILES = sorted(EVENTS.glob("*.json"))
OF_A_CONTAINER = {"health", "metrics"}


@pytest.fixture(scope="module")
def base() -> str:
    return base_of(lambda_image.DOCKERFILE)


@pytest.fixture(scope="module")
def template(checkout: Path, base: str) -> Iterator[Path]:
    """The stack's, after SAM has built the image."""
    state = checkout / ".aws-sam"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lambda_image, "REPOSITORY", REPOSITORY)
        lambda_image.build_image(state / "image", state / "build", base=base)
    yield state / "image" / "template.yaml"
    for image in docker("images", "--quiet", REPOSITORY).split():
        with suppress(AssertionError):  # of two names for one image
            docker("rmi", "--force", image)


@pytest.fixture(scope="module")
def container(template: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """Its id. The emulator is SAM's, as the base image may have none."""
    emulator = find_emulator()
    environ = [f"--env={name}={value}" for name, value in variables.items()]
    started = docker(
        *("run", "--detach", *AS_IN_LAMBDA, *environ, "--env=AWS_REGION=us-east-1"),
        *("--volume", f"{emulator}:/emulator:ro", "--entrypoint", "/emulator"),
        *(REPOSITORY, "/lambda-entrypoint.sh", "handler.lambda_handler"),
    )
    yield started
    docker("rm", "--force", started)


def _invoke(container: str, event: Path) -> dict[str, Any]:
    code = ("exec", "--interactive", container, "python3", "-c", INVOKE)
    response: dict[str, Any] = json.loads(docker(*code, content=event.read_text()))
    return response


@pytest.mark.parametrize("event", EVENT_FILES, ids=lambda path: path.stem)
def test_an_event_is_answered_as_by_the_zip(container: str, event: Path, handle: Handle) -> None:
    answer = Answer.of(_invoke(container, event))
    expected = Answer.of(handle(event.read_bytes()))
    if event.stem in OF_A_CONTAINER:
        assert answer.status == HTTPStatus.OK
        assert answer.body.keys() == expected.body.keys()
    else:
        assert answer == expected


@pytest.mark.parametrize("name", ["predict", "predict_with_context", "negative_id"])
def test_sam_runs_it_too(name: str, template: Path, checkout: Path, handle: Handle) -> None:
    event = EVENTS / f"{name}.json"
    sam = Sam(checkout, ("--template", str(template)))
    assert Answer.of(sam.invoke(event)) == Answer.of(handle(event.read_bytes()))


def test_start_api_serves_it_too(template: Path, checkout: Path, handle: Handle) -> None:
    """By the configuration beside the template."""
    body = '{"user_id": 123, "item_ids": [5, 12, 41, 64, 199]}'
    with Sam(checkout, ("--template", str(template))).serving("start-api") as url:
        answer = asked(f"{url}/predict", body)
    assert answer == Answer.of(handle(example_event("POST", "/predict", body.encode())))


def test_its_user_is_not_root_and_writes_to_tmp_alone(container: str) -> None:
    user, *refused = docker("exec", container, "python3", "-c", WRITE).splitlines()
    assert user == USER.replace(":", " ")
    assert [line.partition(" ")[0] for line in refused] == [
        "/var/task",
        "/opt/python",
        "/opt/model",
    ]
    assert {line.partition(" ")[2] for line in refused} == {"Read-only file system"}


def test_it_is_as_large_as_the_zip_beside_its_base(template: Path, base: str) -> None:
    sizes = [
        int(docker("image", "inspect", "--format", "{{.Size}}", i)) for i in (REPOSITORY, base)
    ]
    assert 0 < sizes[0] - sizes[1] <= BAR_BYTES


def test_the_base_images_entry_point_runs_the_handler(template: Path, base: str) -> None:
    image, parent = (
        json.loads(docker("inspect", name))[0]["Config"] for name in (REPOSITORY, base)
    )
    assert image["Entrypoint"] == parent["Entrypoint"] == ["/lambda-entrypoint.sh"]
    assert image["Cmd"] == ["handler.lambda_handler"]
    assert not image.get("User")  # so that Lambda takes its own
