"""Live features on the local Lambda: the real emulator and runtime client, DynamoDB by moto."""

import asyncio
import json
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console

import demo
from feedops.features.load import LoadOptions, load, moment
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.workspace import EVENTS, FUNCTION

EVENT = (EVENTS / "predict.json").read_bytes()


async def _ranked(directory: Path, *events: bytes, **variables: str) -> list[Any]:
    environment = await ExecutionEnvironment.start(
        Function(FUNCTION, variables, timeout_s=60),
        log=directory / "log",
        temporary=directory / "tmp",
    )
    try:
        responses = [json.loads(await environment.invoke(event)) for event in events]
    finally:
        await environment.stop()
    assert {response["statusCode"] for response in responses} == {200}, (
        directory / "log"
    ).read_text()
    return [json.loads(response["body"]) for response in responses]


def _directory(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def _scores(body: Any) -> dict[int, float]:
    return {each["item_id"]: each["score"] for each in body["predictions"]}


def test_scores_are_the_snapshots_with_the_table_and_without_it(
    demo_bundle: Path, aws_server: str, tmp_path: Path
) -> None:
    boto3.client("dynamodb").create_table(
        TableName="rows",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    demo.write_features(tmp_path / "tables", demo.demo_spec())
    as_of_s = moment("2026-11-20T00:00:00Z")
    options = LoadOptions(tmp_path / "tables", demo_bundle, "dynamodb://rows", as_of_s, 1_000_000)
    load(options, Console(quiet=True))
    variables = {
        "MODEL_URI": str(demo_bundle),
        "AWS_ENDPOINT_URL": aws_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "FEATURES_TIMEOUT_MS": "30000",
        "REQUEST_TIMEOUT_MS": "40000",
    }
    (snapshot,) = asyncio.run(_ranked(_directory(tmp_path, "snapshot"), EVENT, **variables))
    for number, uri in enumerate(("dynamodb://rows", "users:dynamodb://rows", "dynamodb://none")):
        bodies = asyncio.run(
            _ranked(_directory(tmp_path, str(number)), EVENT, EVENT, **variables, FEATURES_URI=uri)
        )
        for body in bodies:
            assert bool(body["degraded"]) == uri.endswith("none"), body["degraded"]
            scores = _scores(body)
            assert scores.keys() == _scores(snapshot).keys()
            apart = max(abs(scores[item] - score) for item, score in _scores(snapshot).items())
            assert apart <= 1e-6
