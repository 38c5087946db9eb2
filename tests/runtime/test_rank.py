"""`feedrank rank` on the real runtime and on a real server."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedops.cli.main import app
from uvicorns import uvicorn

REQUEST = ["rank", "--user", "123", "--items", "1001,1002,1003", "--context", "device=mobile"]


def predictions(*options: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(app, [*REQUEST, *options, "--json"])
    assert result.exit_code == 0, result.stderr
    ranking: list[dict[str, object]] = json.loads(result.stdout)["predictions"]
    return ranking


def test_a_bundle_and_a_server_rank_alike(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with uvicorn(demo_bundle) as server:
        served = predictions("--url", server.url)
    assert sorted(str(each["item_id"]) for each in served) == ["1001", "1002", "1003"]
    assert predictions("--bundle", str(demo_bundle)) == served


def test_a_request_that_the_model_refuses_shows_why(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--bundle", str(demo_bundle), "--context", "device=fridge"]
    result = CliRunner().invoke(app, [*REQUEST[:-2], *options])
    assert result.exit_code == 1
    assert "/predict responds with status 422" in result.stderr
    assert "context.device" in result.stderr
