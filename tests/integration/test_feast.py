"""A published model that reads Feast's tables, by moto's HTTP server: rows that the SDK wrote, as
`tests/feast_store/rows.json` has them, give the scores of torch and of the snapshot."""

import asyncio
import json
import os
from base64 import b64decode
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from typer.testing import CliRunner

import demo
import fakes
import feast_rows
from feast_sdk import AS_OF, demo_repository
from feedmodel.publish.build import PublishOptions, build_bundle
from feedops.cli.main import app
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.workspace import FUNCTION
from feedrank.features.feast import ViewTable
from feedrank.features.feast_views import FeastView
from feedrank.features.spec_reader import parse_spec
from live_requests import ranked, scores

URI = "feast://feed"
ITEMS = [*range(1, 20), 88, 1001]
BODY = {
    "user_id": 7,
    "item_ids": [*ITEMS, 5_000, 88],
    "context": {"device": "mobile", "timestamp": "2026-11-20T12:00:00Z"},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_repository(tmp_path_factory.mktemp("feast"))


@pytest.fixture(scope="module")
def bundle(demo_bundle: Path, repository: Path, tracking_uri: str) -> Path:
    """Of the demo's model, with the spec that reads Feast."""
    options = PublishOptions(
        "models:/feed_ranker@production",
        tracking_uri,
        spec=repository / "feature_spec.json",
        bundles=repository / "bundles",
    )
    return build_bundle(options).directory


@pytest.fixture
def dynamodb(aws_server: str) -> Any:
    client = boto3.client("dynamodb")
    for name, items in feast_rows.DEMO.items():
        client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "entity_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "entity_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for item in items:
            client.put_item(TableName=name, Item=_typed(item))
    return client


def _typed(value: Any) -> Any:
    """As boto3 takes it: bytes, where JSON has base64."""
    if not isinstance(value, dict):
        return value
    return {k: b64decode(v) if k == "B" else _typed(v) for k, v in value.items()}


@pytest.mark.parametrize("scheme", ["", "users:"])
@pytest.mark.usefixtures("dynamodb")
def test_scores_are_torchs_and_the_snapshots(scheme: str, bundle: Path) -> None:
    live, snapshot = ranked(bundle, BODY, FEATURES_URI=scheme + URI), ranked(bundle, BODY)
    assert (live["degraded"], live["unknown"]) == ([], {"user": False, "items": [5_000]})
    assert scores(live) == pytest.approx(scores(snapshot), abs=1e-6)
    rows = demo.features_of(7, BODY["item_ids"], "mobile", hour=12, weekday=4)
    expected = dict(zip(BODY["item_ids"], demo.torch_scores("deep_mlp", rows), strict=True))
    assert scores(live) == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("dynamodb")
def test_scores_on_the_emulator_are_the_same(bundle: Path, tmp_path: Path) -> None:
    """And Lambda's own process has all that a Feast store needs."""
    settings = {
        "MODEL_URI": str(bundle),
        "FEATURES_URI": URI,
        "FEATURES_TIMEOUT_MS": "60000",
        "REQUEST_TIMEOUT_MS": "120000",
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
    }
    body = asyncio.run(_invoked(tmp_path, settings))
    assert (body["degraded"], body["unknown"]) == ([], {"user": False, "items": [5_000]})
    assert scores(body) == pytest.approx(scores(ranked(bundle, BODY)), abs=1e-6)


async def _invoked(directory: Path, settings: dict[str, str]) -> Any:
    environment = await ExecutionEnvironment.start(
        Function(FUNCTION, settings, timeout_s=120),
        log=directory / "log",
        temporary=directory / "tmp",
    )
    event = json.dumps(fakes.http_event("POST", "/predict", BODY)).encode()
    try:
        response = json.loads(await environment.invoke(event))
    finally:
        await environment.stop()
    assert response["statusCode"] == 200, (directory / "log").read_text()
    return json.loads(response["body"])


def test_a_row_that_changes_changes_its_score_alone(bundle: Path, dynamodb: Any) -> None:
    before = scores(ranked(bundle, BODY, FEATURES_URI=URI))
    of_1, of_2 = _key(1), _key(2)
    values = dynamodb.get_item(TableName="feed.items", Key=of_2)["Item"]["values"]
    dynamodb.update_item(
        TableName="feed.items",
        Key=of_1,
        UpdateExpression="SET #v = :v",
        ExpressionAttributeNames={"#v": "values"},
        ExpressionAttributeValues={":v": values},
    )
    after = scores(ranked(bundle, BODY, FEATURES_URI=URI))
    assert {item for item in before if before[item] != after[item]} == {1}
    rows = demo.features_of(7, [2], "mobile", hour=12, weekday=4)
    rows[0, 13] = demo.features_of(7, [1], "mobile", hour=12, weekday=4)[0, 13]  # the pair
    assert after[1] == pytest.approx(demo.torch_scores("deep_mlp", rows)[0], abs=1e-5)


def _key(item: int) -> Any:
    view = FeastView("items", "item_id", "int64", 0.0)
    (key,) = ViewTable("feed", view, []).entity_ids([item])
    return {"entity_id": {"S": key}}


@pytest.mark.usefixtures("aws_server")
def test_without_the_tables_the_snapshot_answers_and_says_so(bundle: Path) -> None:
    response, items = ranked(bundle, BODY, FEATURES_URI=URI), len(BODY["item_ids"])
    rows = items + 1
    assert response["degraded"] == [
        f"features:snapshot {rows - 1}/{rows}",
        f"features:defaults 1/{rows}",
    ]
    assert scores(response) == scores(ranked(bundle, BODY))


@pytest.mark.usefixtures("aws_server")
def test_a_bundle_without_a_mapping_is_refused_at_init(
    demo_bundle: Path, printed: fakes.LogLines
) -> None:
    with fakes.container(MODEL_URI=str(demo_bundle), FEATURES_URI=URI) as handler:
        event = fakes.http_event("GET", "/health")
        assert handler.lambda_handler(event, fakes.LambdaContext())["statusCode"] == 503
    assert any('has no "feast"' in str(line) for line in printed())


# ---- The repository ------------------------------------------------------------------------------


def test_the_repository_has_the_tables_and_says_what_they_are(repository: Path) -> None:
    spec = json.loads((repository / "feature_spec.json").read_text())
    views = {"users": {"join_key": "user_id"}, "items": {"join_key": "item_id"}}
    assert spec["feast"]["views"] == views
    tables = demo.demo_tables()
    for name in views:
        table = pd.read_parquet(repository / f"data/{name}.parquet")
        assert (table.pop("event_timestamp") == pd.Timestamp(AS_OF)).all()
        pd.testing.assert_frame_equal(table, tables[name])
    assert {f["name"] for f in demo.FEATURES if f["source"] in {"user", "item"}} == {
        *spec["feast"]["features"]
    }
    assert parse_spec(spec).to_json()["feast"] == spec["feast"]
    compile((repository / "features.py").read_text(), "features.py", "exec")


def test_a_repository_for_a_region_has_its_store_there(tmp_path: Path) -> None:
    text = (demo_repository(tmp_path, "eu-west-1") / "feature_store.yaml").read_text()
    assert "type: dynamodb\n    region: eu-west-1\n" in text
    assert "entity_key_serialization_version: 3\n" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 2}, "item_ctr: is a list"),
        ({"name": "nowhere"}, "lacks the column nowhere"),
    ],
)
def test_a_repository_that_can_not_be_read_is_not_written(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    features = [f | change if f["name"] == "item_ctr" else f for f in demo.FEATURES]
    spec = {"inputs": [{"name": "features", "features": features}]}
    demo.write_features(tmp_path / "tables", spec)
    arguments = ["--from", str(tmp_path / "tables"), "--to", str(tmp_path / "to"), "--as-of", AS_OF]
    result = CliRunner().invoke(app, ["features", "feast-repo", *arguments])
    assert (result.exit_code, message in result.output.replace("\n", " ")) == (1, True)
    assert not (tmp_path / "to").exists()
