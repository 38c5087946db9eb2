"""A start from S3 on the local Lambda: what the process loads, and how it fetches."""

import asyncio
import json
from pathlib import Path
from typing import Any

from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.workspace import EVENTS, FUNCTION
from scripted import S3_URI, VARIABLES, scripted, served_bundle

MODULES = """
import sys
from fastapi import APIRouter

router = APIRouter()


@router.get("/modules")
async def modules() -> list[str]:
    return sorted(sys.modules)


ROUTERS = [router]
"""
EVENT = (EVENTS / "predict.json").read_bytes()


async def _invoke(function: Function, directory: Path, *events: bytes) -> list[Any]:
    environment = await ExecutionEnvironment.start(
        function, log=directory / "log", temporary=directory / "tmp"
    )
    try:
        return [json.loads(await environment.invoke(event)) for event in events]
    finally:
        await environment.stop()


def test_on_lambda_neither_a_start_from_s3_nor_a_record_loads_boto3(
    demo_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/loaded.py").write_text(MODULES)
    listing = json.loads(EVENT)
    listing["rawPath"] = listing["requestContext"]["http"]["path"] = "/modules"
    listing["requestContext"]["http"]["method"] = "GET"
    with served_bundle(demo_bundle) as s3, scripted() as firehose:
        variables = VARIABLES | {
            "MODEL_URI": S3_URI,
            "AWS_ENDPOINT_URL_S3": s3.url,
            "AWS_ENDPOINT_URL_FIREHOSE": firehose.url,
            "DECISION_STREAM": "decisions",
            "EXTENSIONS": "loaded",
        }
        function = Function(FUNCTION, variables, layers=(tmp_path / "layer",), timeout_s=60)
        events = (EVENT, json.dumps(listing).encode())
        ranked, listed = asyncio.run(_invoke(function, tmp_path, *events))
    assert (ranked["statusCode"], listed["statusCode"]) == (200, 200)
    assert (len(s3.requests), len(firehose.requests)) == (5, 1)
    modules = set(json.loads(listed["body"]))
    assert "feedrank.decisions.sinks.firehose" in modules
    packages = {name.partition(".")[0] for name in modules}
    assert packages & {"boto3", "s3transfer", "urllib3", "requests"} == set()
    # Powertools adds its name to the top module, if that is installed.
    assert {name for name in modules if name.startswith("botocore")} == {"botocore"}
