"""`feedrank serve`: AWS, the function and API Gateway's place, all on this machine."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import aiohttp
from rich.console import Console

from feedmodel.options import TRACKING_VARIABLE, NetworkName
from feedops.display import print_facts, print_ranking, print_whole, steps
from feedops.errors import EmulatorMissingError, OperationError, StartError
from feedops.local import gateway
from feedops.local.aws import BUCKET, create_bucket, local_aws, sdk_environment
from feedops.local.emulator import Function, find_emulator
from feedops.local.front import Front, serving
from feedops.local.pool import EnvironmentPool
from feedops.local.processes import LOCALHOST, Process, reserve, tail
from feedops.local.report import printed_by_function
from feedops.models.releases import local_bundle, manifest_of, model_to_serve
from feedops.workspace import EVENTS, FUNCTION, LOGS, PREDICTIONS, scratch_folder
from feedrank.bundle.layout import Manifest

FrontName = Literal["lambda", "uvicorn"]

JSON = "application/json"
EXAMPLE = EVENTS / "predict.json"
EVERYWHERE = {"0.0.0.0": LOCALHOST, "::": "::1"}  # noqa: S104 looked up, not listened on
UVICORN_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`variables` are environment variables for the function; they win over what serve sets.
    A `bundle` needs no MLflow. `front` None: the Lambda, or uvicorn where no emulator runs."""

    model: str | None = None
    bundle: Path | None = None
    tracking_uri: str | None = None
    network: NetworkName | None = None
    train: bool = False
    publish: bool = False
    front: FrontName | None = None
    host: str = LOCALHOST
    port: int = 8_000
    concurrency: int = 2
    memory_mb: int = 1_769
    timeout_s: int = 10
    show_answer: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def near_host(self) -> str:
        """Where this machine reaches it, also when it listens everywhere."""
        return EVERYWHERE.get(self.host, self.host)

    @property
    def url(self) -> str:
        host = self.near_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def logs(self) -> Path:
        """Two that serve side by side have different ports."""
        return LOGS / f"port-{self.port}"


def serve(options: ServeOptions, console: Console) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises FeedrankError, of this package's kinds or of training's and publishing's.
    """
    options = replace(options, front=_front(options.front, console))
    with reserve(options.host, options.port) as bound, scratch_folder() as scratch:
        bundle = _bundle(options, console)
        asyncio.run(until_signal(_serve(options, bundle, bound, scratch, console)))
    console.print("Stopped.")


def _front(chosen: FrontName | None, console: Console) -> FrontName:
    """Raises EmulatorMissingError where the Lambda was asked for by name."""
    if chosen == "uvicorn":
        return chosen
    try:
        find_emulator()
    except EmulatorMissingError as error:
        if chosen:
            raise
        print_whole(console, f"No Lambda here, the same app on uvicorn instead: {error}")
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


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


async def _serve(
    options: ServeOptions, bundle: Path, bound: socket.socket, scratch: Path, console: Console
) -> None:
    manifest = manifest_of(bundle)
    open_front = _uvicorn_front if options.front == "uvicorn" else _lambda_front
    async with AsyncExitStack() as stack:
        with steps(console, "Starting S3 (moto) and the function"):
            aws = await stack.enter_async_context(local_aws(options.logs / "moto.log"))
            model_uri = await asyncio.to_thread(_upload, bundle, aws)
            function = _configured(options, aws, model_uri, manifest.digest)
            running = await stack.enter_async_context(open_front(options, function, bound, scratch))
            client = await stack.enter_async_context(aiohttp.ClientSession(options.url))
            await _check_health(client, running.log)
        _print_summary(console, options, manifest, model_uri)
        if options.show_answer:
            print_ranking(console, await _ask(client, running.log))
        console.print("Serving until Ctrl-C.")
        await running.end()


def _configured(
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


@dataclass(frozen=True, slots=True)
class _Running:
    """An open front: the log that says what is wrong with it, and how to wait for its end."""

    log: Path
    end: Callable[[], Awaitable[object]]


@asynccontextmanager
async def _lambda_front(
    options: ServeOptions, function: Function, bound: socket.socket, scratch: Path
) -> AsyncIterator[_Running]:
    pool = EnvironmentPool(function, options.concurrency, logs=options.logs, scratch=scratch)
    async with pool:
        await pool.warm_up(gateway.example_event("GET", "/health"))
        async with serving(Front(pool.invoke), bound):
            yield _Running(options.logs / "environment-1.log", asyncio.Event().wait)


@asynccontextmanager
async def _uvicorn_front(
    options: ServeOptions, function: Function, bound: socket.socket, scratch: Path
) -> AsyncIterator[_Running]:
    """The same app and settings on a web server; nothing of Lambda."""
    bound.close()
    command: list[str | Path] = [
        *(function.python, "-m", "feedrank.server"),
        *("--host", options.host, "--port", str(options.port)),
    ]
    process = await Process.start(
        "uvicorn",
        command,
        options.logs / "uvicorn.log",
        function.configuration(scratch),
        cwd=function.task_root,
    )

    async def end() -> None:
        code = await process.wait()
        raise StartError(f"uvicorn ended with exit code {code}; {tail(process.log)}")

    try:
        await process.until_listening(options.port, UVICORN_START_TIMEOUT_S, options.near_host)
        yield _Running(process.log, end)
    finally:
        await process.stop()


def _upload(bundle: Path, aws: Mapping[str, str]) -> str:
    """moto's S3 is empty at each start. Returns the bundle's URI."""
    from feedmodel.publish.upload import upload

    with sdk_environment(aws):
        create_bucket()
        return upload(bundle, f"s3://{BUCKET}/models/").uri


async def _check_health(client: aiohttp.ClientSession, log: Path) -> None:
    async with client.get("/health") as response:
        if response.status != HTTPStatus.OK:
            words = tail(log, printed_by_function)
            raise StartError(f"no model is served, /health answers {response.status}; {words}")


def _print_summary(
    console: Console, options: ServeOptions, manifest: Manifest, model_uri: str
) -> None:
    facts = {
        "API": options.url,
        "docs": f"{options.url}/docs",
        "model": f"{manifest.model_version} ({manifest.network})",
        "digest": manifest.digest,
        "bundle": model_uri,
        "front": (
            "uvicorn, one worker"
            if options.front == "uvicorn"
            else f"{options.concurrency} Lambda environments, "
            f"{options.memory_mb:,} MB, {options.timeout_s} s"
        ),
        "decisions": str(PREDICTIONS),
        "logs": str(options.logs),
    }
    print_facts(console, facts)
    print_whole(
        console,
        f"curl -s {options.url}/predict -H 'content-type: {JSON}' -d '{_example_body()}'",
    )


async def _ask(client: aiohttp.ClientSession, log: Path) -> dict[str, Any]:
    """The answer to the example. Raises StartError."""
    headers = {"content-type": JSON}
    async with client.post("/predict", data=_example_body(), headers=headers) as response:
        if response.status != HTTPStatus.OK:
            words = tail(log, printed_by_function)
            raise StartError(f"/predict answers {response.status}; {words}")
        answer: dict[str, Any] = await response.json()
        return answer


def _example_body() -> str:
    body: str = json.loads(EXAMPLE.read_bytes())["body"]
    return body
