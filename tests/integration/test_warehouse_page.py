"""The page "From your warehouse to a ranked answer", as it stands there: a query of interactions, a
bundle, rows in a table, a ranking by them."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import demo
import streamed
from feedmodel.demo.feed import Feed, generate_feed
from feedmodel.demo.specs import Priors
from feedmodel.training.runs import log_network, tracked_run
from feedops.cli.main import app
from feedops.features.load import moment
from feedops.workspace import PROJECT

PAGE = (PROJECT / "infra" / "streaming" / "README.md").read_text()
AS_OF_S = int(moment("2026-10-20T00:00:00Z"))
PRIOR = Priors(ctr=0.125, dwell_s=20.0, device="mobile", age_days=25.0)
RUN = "import duckdb, sys; duckdb.connect().execute(sys.stdin.read())"  # see stack/athena.py


def _block(name: str) -> str:
    match = re.search(
        rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
    )
    assert match, f"the page has no block {name!r}"
    return match[1]


def _export(feed: Feed, directory: Path) -> None:
    """What the warehouse has."""
    pd.DataFrame(
        {
            "user_id": feed.user_id,
            "item_id": feed.item_id,
            "shown_at": pd.to_datetime(feed.time_s, unit="s"),
            "clicked": feed.clicked.astype(np.int64),
            "dwell_ms": feed.dwell_ms,
        }
    ).to_parquet(directory / "interactions.parquet")
    items = np.arange(len(feed.created_s)) + 1
    created = pd.to_datetime(feed.created_s, unit="s")
    pd.DataFrame({"item_id": items, "created_at": created}).to_parquet(
        directory / "catalogue.parquet"
    )
    (directory / "tables").mkdir()


def _invoke(command: str) -> str:
    result = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_server: str
) -> None:
    feed = generate_feed(60, 200, 3_000, seed=3)
    _export(feed, tmp_path)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", RUN], input=_block("tables.sql").encode(), check=True)
    batch = streamed.tables(feed, AS_OF_S, PRIOR)
    for name, ids in (("users", 1), ("items", 1), ("pairs", 2)):
        keys = ["user_id", "item_id"] if ids == 2 else [f"{name[:-1]}_id"]
        table = pd.read_parquet(f"tables/{name}.parquet").sort_values(keys, ignore_index=True)
        assert table[keys].to_numpy().tolist() == batch[name][keys].to_numpy().tolist()
        cells = batch[name].columns.difference([*keys, "item_created_at"])
        np.testing.assert_array_equal(
            streamed.bits(table[cells]), streamed.bits(batch[name][cells]), name
        )

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    spec = streamed.spec(PRIOR)
    Path("spec.json").write_text(json.dumps(spec.to_json()))
    examples = {i.name: np.ones((4, len(i.features)), np.float32) for i in spec.inputs}
    with tracked_run(uri, "tests", "warehouse"):
        model = log_network(demo.network("deep_mlp"), spec, examples)
    mlflow.register_model(model, "feed")

    client = streamed.create_tables()
    publish, load, rank = _block("commands").replace("$ ", "").splitlines()
    _invoke(publish)
    _invoke(load)
    rows = len(batch["users"]) + len(batch["items"])
    assert len(streamed.items_of(client, "rows")) == rows
    more = "".join(
        f" --env {name}={value}"
        for name, value in {
            "AWS_ENDPOINT_URL": aws_server,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "FEATURES_TIMEOUT_MS": "30000",
            "REQUEST_TIMEOUT_MS": "60000",
        }.items()
    )
    response: Any = json.loads(_invoke(rank + more + " --context timestamp=2026-10-20T12:00:00Z"))
    assert (response["degraded"], response.get("unknown")) == ([], None)
    expected = _scores_of_torch(batch, 7, [1, 2, 3, 4, 5])
    served = {each["item_id"]: each["score"] for each in response["predictions"]}
    assert served == pytest.approx(expected, abs=1e-5)
    assert [*served] == sorted(expected, key=lambda item: -expected[item])


def _scores_of_torch(batch: dict[str, pd.DataFrame], user: int, items: list[int]) -> dict[int, Any]:
    """At noon, cell by cell from the tables that training computes. No device: the prior's."""
    users, catalogue = batch["users"].set_index("user_id"), batch["items"].set_index("item_id")
    pairs = batch["pairs"].set_index(["user_id", "item_id"])[streamed.PAIR[0]].to_dict()
    now_s = AS_OF_S + 12 * 3_600
    rows = [
        [
            *users.loc[user, streamed.USER],
            *catalogue.loc[item, streamed.ITEM],
            (now_s - catalogue.loc[item, "item_created_at"]) / 86_400,
            12, 1, 1, 0, 0,  # noon, a Tuesday, mobile
            pairs.get((user, item), 0.0),
            0,
        ]
        for item in items
    ]  # fmt: skip
    scores = demo.torch_scores("deep_mlp", demo.torch.tensor(rows, dtype=demo.torch.float32))
    return dict(zip(items, scores, strict=True))
