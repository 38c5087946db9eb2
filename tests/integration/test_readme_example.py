"""README's "Your own model", as it stands there: from a torch module to a ranked response."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from typer.testing import CliRunner

from feedops.cli.main import app
from feedops.workspace import EVENTS, PROJECT

README = (PROJECT / "README.md").read_text()
PRICES = [4.0, 2.5, 9.0, 5.0, 1.0]  # the fourth is the spec's default
HISTORY = [[0, 5, 2]]  # two items of the vocabulary, filled in front
TOLERANCE = 1e-5


def _block(name: str) -> str:
    block = rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```"
    match = re.search(block, README, re.DOTALL | re.MULTILINE)
    assert match, f"README.md has no block {name!r}"
    return match[1]


def test_the_example_of_the_readme_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = _block("commands").replace("$ ", "")
    exported, script, publish, serve, request = commands.split("\n", 4)
    name, uri = exported.removeprefix("export ").split("=", 1)
    for file in ("shop.py", "spec.json"):
        (tmp_path / file).write_text(_block(file))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, uri)
    assert script == "python shop.py"
    # MLflow looks for the packages that a model needs by loading it once more.
    environment = os.environ | {"MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1"}
    subprocess.run([sys.executable, "shop.py"], check=True, env=environment)
    published = CliRunner().invoke(app, shlex.split(publish)[1:], catch_exceptions=False)
    assert published.exit_code == 0, published.output

    body = shlex.split(request)[-1]
    event = json.loads((EVENTS / "predict.json").read_text()) | {"body": body}
    Path("event.json").write_text(json.dumps(event))
    bundle = shlex.split(serve)[2:]
    answered = CliRunner().invoke(app, ["invoke", "-e", "event.json", *bundle])
    served = json.loads(json.loads(answered.stdout)["body"])["predictions"]
    printed = [json.loads(line) for line in re.findall(r'\{"item_id".*?\}', _block("answer"))]
    scores = _scores_of_torch(uri, json.loads(body))
    assert [{**row, "score": 0} for row in served] == [{**row, "score": 0} for row in printed]
    for rows in (served, printed):
        expected = {row["item_id"]: scores[row["item_id"]] for row in rows}
        assert {row["item_id"]: row["score"] for row in rows} == pytest.approx(
            expected, abs=TOLERANCE
        )
        assert [row["item_id"] for row in rows] == sorted(scores, key=lambda item: -scores[item])


def _scores_of_torch(uri: str, request: dict[str, Any]) -> dict[int, float]:
    """By item, from tensors written by hand."""
    mlflow.set_tracking_uri(uri)
    module = mlflow.pytorch.load_model("models:/shop/1")
    sent = request["features"]["retrieval_score"]
    item = torch.tensor([*zip(PRICES, sent, strict=True)])
    with torch.inference_mode():
        scores = module(torch.tensor(HISTORY), item)
    return dict(zip(request["item_ids"], scores.tolist(), strict=True))
