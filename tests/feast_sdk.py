"""Feast's own SDK, in `.venv-feast`, where `make feast` has installed it."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

import demo
from feedops.cli.main import app

PYTHON = Path(__file__).parents[1] / ".venv-feast/bin/python"
SDK = Path(__file__).parent / "feast_store/sdk.py"
LACKING = "Feast's SDK is not installed: make feast installs it into .venv-feast"
QUIET = {"FEAST_USAGE": "False"}  # no word home
AS_OF = "2026-11-20T00:00:00Z"


def materialize(repositories: Sequence[Path], requests: Sequence[Mapping[str, Any]]) -> Any:
    """Writes the repositories' rows into their online stores; the SDK's version, and its answers
    by repository and request, as `tests/feast_store/sdk.py` has them."""
    asked = {"repositories": [str(each) for each in repositories], "requests": requests}
    done = subprocess.run(
        [str(PYTHON), str(SDK)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | QUIET,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-4_000:]
    return json.loads(done.stdout.splitlines()[-1])


def demo_repository(directory: Path, region: str = "") -> Path:
    """Of the demo's tables, as `feedrank features feast-repo` writes it."""
    tables, repository = directory / "tables", directory / f"repository-{region}"
    if not tables.exists():
        demo.write_features(tables, demo.demo_spec())
    arguments = ["--from", str(tables), "--to", str(repository), "--as-of", AS_OF]
    store = ["--region", region] if region else []
    result = CliRunner().invoke(app, ["features", "feast-repo", *arguments, *store])
    assert result.exit_code == 0, result.output
    return repository


def demo_requests(users: Sequence[int], items: Sequence[int]) -> list[dict[str, Any]]:
    """For all features of users and items of the demo."""
    requests = []
    for view, key, ids in (("users", "user_id", users), ("items", "item_id", items)):
        names = [f["name"] for f in demo.FEATURES if f["source"] == key.removesuffix("_id")]
        features = [f"{view}:{name}" for name in names]
        requests.append({"features": features, "join_key": key, "ids": [*ids]})
    return requests
