"""A team's own file beside the handler: found wherever the function runs, also as SAM builds it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from feedops.local.invoke import invoke_bundle
from feedops.workspace import EVENTS, FUNCTION
from uvicorns import uvicorn

EVENT = (EVENTS / "predict.json").read_bytes()
BODY = json.loads(json.loads(EVENT)["body"])
TEAMS = {
    "extensions.py": "from rules.order import WorstFirst\n\nSTAGES = [WorstFirst()]\n",
    "rules/__init__.py": "",
    "rules/order.py": """
class WorstFirst:
    name = "worst first"

    def reorder(self, scored):
        return scored.order[::-1]
""",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """function/ with a team's file and package in it."""
    directory = tmp_path_factory.mktemp("sources") / "function"
    shutil.copytree(FUNCTION, directory, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in TEAMS.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.fixture(scope="module")
def artifact(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/var/task as SAM builds it of that."""
    directory = tmp_path_factory.mktemp("artifact")
    variables = (f"ARTIFACTS_DIR={directory}", f"LAMBDA_PYTHON={sys.executable}")
    subprocess.run(["make", "--silent", "build-Function", *variables], cwd=sources, check=True)
    return directory


@pytest.mark.parametrize("kind", ["sources", "artifact"])
def test_on_the_local_lambda_it_is_found_in_the_sources_and_in_the_artifact(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    demo_bundle: Path,
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("feedops.local.invoke.FUNCTION", request.getfixturevalue(kind))
    variables = {"EXTENSIONS": "extensions"}
    result = invoke_bundle(EVENT, demo_bundle, variables, memory_mb=1_769, timeout_s=30)
    assert result.error is None, result.log
    _is_worst_first(json.loads(result.response["body"]))


def test_under_a_web_server_it_is_found(sources: Path, demo_bundle: Path) -> None:
    with uvicorn(demo_bundle, function=sources, EXTENSIONS="extensions") as server:
        _is_worst_first(httpx2.post(f"{server.url}/predict", json=BODY).json())


def _is_worst_first(response: dict[str, list[dict[str, float]]]) -> None:
    scores = [each["score"] for each in response["predictions"]]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores) == len(BODY["item_ids"])
