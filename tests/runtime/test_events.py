"""Every event in events/ through the real emulator, runtime client and handler."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import demo
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.workspace import EVENTS, FUNCTION

JSON = "application/json"
PROBLEM = "application/problem+json"
# A file's name: the status and the content type of what it is answered with.
EXPECTED = {
    "alb": (200, JSON),
    "docs": (200, "text/html; charset=utf-8"),
    "function_url": (200, JSON),
    "health": (200, JSON),
    "malformed_json": (422, PROBLEM),
    "metrics": (200, JSON),
    "negative_id": (422, PROBLEM),
    "predict": (200, JSON),
    "predict_with_context": (200, JSON),
    "rest_v1": (200, JSON),
    "too_many_items": (422, PROBLEM),
    "two_tower": (200, JSON),
    "unknown_user": (200, JSON),
}

Handle = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Handle]]:
    """Puts a bundle behind the handler, and answers events by their names."""
    environments: list[ExecutionEnvironment] = []
    with asyncio.Runner() as runner:

        def deployed(bundle: Path) -> Handle:
            directory = tmp_path_factory.mktemp("environment")
            environment = runner.run(
                ExecutionEnvironment.start(
                    Function(FUNCTION, {"MODEL_URI": str(bundle)}, timeout_s=60),
                    log=directory / "environment.log",
                    temporary=directory / "tmp",
                )
            )
            environments.append(environment)

            def handle(name: str) -> dict[str, Any]:
                event = (EVENTS / f"{name}.json").read_bytes()
                response: dict[str, Any] = json.loads(runner.run(environment.invoke(event)))
                return response

            return handle

        yield deployed
        for environment in environments:
            runner.run(environment.stop())


@pytest.fixture(scope="module")
def handle(deploy: Callable[[Path], Handle], demo_bundle: Path) -> Handle:
    return deploy(demo_bundle)


@pytest.fixture(scope="module")
def handle_two_tower(deploy: Callable[[Path], Handle], two_tower_bundle: Path) -> Handle:
    return deploy(two_tower_bundle)


def scores_by_item(response: dict[str, Any]) -> dict[int, float]:
    predictions = json.loads(response["body"])["predictions"]
    return {each["item_id"]: each["score"] for each in predictions}


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.iterdir()))
def test_an_event_is_answered_as_documented(handle: Handle, name: str) -> None:
    response = handle(name)
    headers = response.get("headers") or {k: v[0] for k, v in response["multiValueHeaders"].items()}
    assert (response["statusCode"], headers["content-type"]) == EXPECTED[name]
    assert response["isBase64Encoded"] is False


def test_no_event_is_missing() -> None:
    assert {path.stem for path in EVENTS.iterdir()} == EXPECTED.keys()


@pytest.mark.parametrize("name", ["alb", "function_url", "rest_v1"])
def test_the_same_request_ranks_the_same_items_in_every_format(handle: Handle, name: str) -> None:
    assert scores_by_item(handle(name)).keys() == scores_by_item(handle("predict")).keys()


def test_served_scores_are_torchs(handle: Handle) -> None:
    """Sunday 2026-11-22, 20:15 UTC, on a phone."""
    items = [*demo.SAMPLE]
    features = demo.features_of(123, items, "mobile", hour=20, weekday=6)
    expected = dict(zip(items, demo.torch_scores("deep_mlp", features), strict=True))
    assert scores_by_item(handle("predict_with_context")) == pytest.approx(expected, abs=1e-5)


def test_served_scores_of_two_towers_are_torchs(handle_two_tower: Handle) -> None:
    """Monday 2026-11-23, 08:30 UTC, on a desktop; item 5 stands twice among the candidates."""
    items = [5, 41, 199, 300, 64, 12, 230]
    features = demo.features_of(7, items, "desktop", hour=8, weekday=0)
    expected = dict(zip(items, demo.torch_scores("two_tower", features), strict=True))
    response = handle_two_tower("two_tower")
    assert len(json.loads(response["body"])["predictions"]) == 8
    assert scores_by_item(response) == pytest.approx(expected, abs=1e-5)
