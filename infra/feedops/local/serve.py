"""`feedrank serve`: S3, the Lambda function and API Gateway, all on this machine."""

import asyncio
import json
import os
import shlex
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from feedmodel.publish.tracking import TRACKING_VARIABLE
from feedops.display import print_facts, print_ranking, print_whole, steps
from feedops.errors import EmulatorMissingError, OperationError, StartError
from feedops.local.aws import BUCKET, create_bucket, local_aws, sdk_environment
from feedops.local.backends import BACKENDS
from feedops.local.emulator import Function, find_emulator
from feedops.local.emulator_log import printed_by_function
from feedops.local.processes import reserve, tail, until_signal
from feedops.local.serve_options import FrontName, ServeOptions
from feedops.models.bundles import local_bundle, manifest_of, model_to_serve
from feedops.workspace import EVENTS, FUNCTION, PREDICTIONS, scratch_directory
from feedrank.bundle.layout import GOLDEN, Manifest

JSON = "application/json"
EXAMPLE = EVENTS / "predict.json"
MOTO_TIMEOUT_MS = "1000"  # it is no DynamoDB: a hundred rows take tens of milliseconds
FEW_ITEMS = 2  # make no ranking to look at


def serve(options: ServeOptions, console: Console) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises OperationError, or an error of training or publishing.
    """
    options = replace(options, front=_front(options.front, console))
    with reserve(options.host, options.port) as bound, scratch_directory() as scratch:
        bundle = _bundle(options, console)
        asyncio.run(until_signal(_serve(options, bundle, bound, scratch, console)))
    console.print("Stopped.")


def _front(front: FrontName | None, console: Console) -> FrontName:
    """Raises EmulatorMissingError if `front` is "lambda" and no emulator runs here."""
    if front == "uvicorn":
        return front
    try:
        find_emulator()
    except EmulatorMissingError as error:
        if front:
            raise
        print_whole(console, f"No Lambda runtime here, serving by uvicorn instead: {error}")
        return "uvicorn"
    return "lambda"


def _bundle(options: ServeOptions, console: Console) -> Path:
    if options.bundle:
        if options.model or options.network or options.train or options.publish:
            raise OperationError(
                "--bundle names a bundle: leave out --model, --network, --train and --publish"
            )
        manifest_of(options.bundle)
        return options.bundle.absolute()
    if options.tracking_uri:
        os.environ[TRACKING_VARIABLE] = options.tracking_uri  # as MLflow's own setter does
    model = model_to_serve(options.model, options.network, train=options.train, console=console)
    return local_bundle(model, publish=options.publish, console=console)


async def _serve(
    options: ServeOptions, bundle: Path, bound: socket.socket, scratch: Path, console: Console
) -> None:
    manifest = manifest_of(bundle)
    start_backend = BACKENDS[options.front or "lambda"]
    async with AsyncExitStack() as stack:
        with steps(console, "Starting S3 (moto) and the function"):
            aws = await stack.enter_async_context(local_aws(options.logs / "moto.log"))
            model_uri = await asyncio.to_thread(_upload, bundle, aws)
            live = await asyncio.to_thread(_fill_store, bundle, aws) if options.features else {}
            function = _function(options, {**aws, **live}, model_uri, manifest.digest)
            backend = await stack.enter_async_context(
                start_backend(options, function, bound, scratch)
            )
            client = await stack.enter_async_context(aiohttp.ClientSession(options.url))
            await _check_health(client, backend.log)
        body = example_body(bundle, manifest)
        _print_summary(console, options, manifest, model_uri, body)
        if options.show_answer:
            print_ranking(console, await _rank_example(client, body, backend.log))
        console.print("Serving until Ctrl-C.")
        await backend.wait()


def _function(
    options: ServeOptions, aws: Mapping[str, str], model_uri: str, digest: str
) -> Function:
    variables = {
        **aws,
        "MODEL_URI": model_uri,
        "MODEL_DIGEST": digest,
        "DECISION_LOG_DIR": str(PREDICTIONS.absolute()),
        **options.variables,
    }
    return Function(FUNCTION, variables, memory_mb=options.memory_mb, timeout_s=options.timeout_s)


def _upload(bundle: Path, aws: Mapping[str, str]) -> str:
    """Returns the bundle's URI. moto's S3 is empty at each start."""
    from feedmodel.publish.upload import upload

    with sdk_environment(aws):
        create_bucket()
        return upload(bundle, f"s3://{BUCKET}/models/").uri


def _fill_store(bundle: Path, aws: Mapping[str, str]) -> dict[str, str]:
    """The function's settings for it."""
    from feedops.features.local_table import fill_table

    with sdk_environment(aws):
        uri = fill_table(bundle)
    return {"FEATURES_URI": uri, "FEATURES_TIMEOUT_MS": MOTO_TIMEOUT_MS}


async def _check_health(client: aiohttp.ClientSession, log: Path) -> None:
    async with client.get("/health") as response:
        if response.status != HTTPStatus.OK:
            raise StartError(
                f"no model is served, /health responds with status {response.status}; "
                f"{tail(log, printed_by_function)}"
            )


async def _rank_example(client: aiohttp.ClientSession, body: str, log: Path) -> dict[str, Any]:
    """The response to the example request. Raises StartError."""
    headers = {"content-type": JSON}
    async with client.post("/predict", data=body.encode(), headers=headers) as response:
        if response.status != HTTPStatus.OK:
            raise StartError(
                f"/predict responds with status {response.status}; {tail(log, printed_by_function)}"
            )
        ranking: dict[str, Any] = await response.json()
        return ranking


def _print_summary(
    console: Console, options: ServeOptions, manifest: Manifest, model_uri: str, body: str
) -> None:
    facts = {
        "API": options.url,
        "docs": f"{options.url}/docs",
        "model": manifest.model_version + f" ({manifest.network})" * bool(manifest.network),
        "digest": manifest.digest,
        "bundle": model_uri,
        "front": (
            "uvicorn, one worker"
            if options.front == "uvicorn"
            else f"{options.concurrency} Lambda environments, "
            f"{options.memory_mb:,} MB, {options.timeout_s} s"
        ),
        **({"features": options.features} if options.features else {}),
        "decisions": str(PREDICTIONS),
        "logs": str(options.logs),
    }
    print_facts(console, facts)
    print_whole(
        console,
        f"curl -s {options.url}/predict -H 'content-type: {JSON}' -d {shlex.quote(body)}",
    )


def example_body(bundle: Path, manifest: Manifest) -> str:
    """The samples' request; where ids are texts, one of the bundle's golden ones."""
    if manifest.feature_spec.get("ids") != "text":
        body: str = json.loads(EXAMPLE.read_bytes())["body"]
        return body
    cases = json.loads((bundle / GOLDEN).read_bytes())["cases"]
    case = next((case for case in cases if len(case["item_ids"]) > FEW_ITEMS), cases[0])
    names = ("user_id", "item_ids", "context", "features")
    return json.dumps({name: case[name] for name in names if case.get(name)}, ensure_ascii=False)
