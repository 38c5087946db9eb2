"""The `feedrank` command. What is heavy is imported by the command that needs it."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from typer.core import TyperGroup

from feedmodel.options import NetworkName, TrainOptions
from feedops.bench import command as bench
from feedops.display import print_facts, print_whole
from feedrank.errors import FeedrankError

DEMO = TrainOptions()
PRODUCTION = f"models:/{DEMO.registered_name}@{DEMO.alias}"

output = Console()
messages = Console(stderr=True)


class Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 Typer keeps these types to itself
        """What goes wrong is said in a line, with the details below it, and the exit code is 1."""
        try:
            return super().invoke(ctx)
        except FeedrankError as error:
            if ctx.params["debug"]:
                raise
            message, _, details = str(error).partition("\n")
            messages.print(Text(message, "bold red"), soft_wrap=True)
            if details:
                messages.print(Text(details, "dim"), soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def variables_of(assignments: list[str]) -> dict[str, str]:
    for assignment in assignments:
        if "=" not in assignment:
            raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE")
    return dict(assignment.split("=", 1) for assignment in assignments)


TrackingUri = Annotated[
    str | None, typer.Option(help="MLflow's; MLFLOW_TRACKING_URI, or data/mlflow, where left out.")
]
Network = Annotated[
    NetworkName | None, typer.Option(help="The newest model of this network, trained if need be.")
]
Front = Annotated[
    Literal["lambda", "uvicorn"],
    typer.Option(help="The real Lambda runtime, or the same app on a plain web server."),
]
Host = Annotated[str, typer.Option(help="Where to listen.")]
Port = Annotated[int, typer.Option(min=1, max=65_535)]
Memory = Annotated[
    int,
    typer.Option(min=128, max=10_240, help="MB, as the function is told; nothing limits it here."),
]
Timeout = Annotated[
    int, typer.Option(min=1, max=900, help="Seconds; here it holds for the init too.")
]
Variables = Annotated[
    list[str],
    typer.Option(
        "--env", metavar="NAME=VALUE", help="An environment variable for the function; repeatable."
    ),
]


@app.callback()
def feedrank(
    *, debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
) -> None:
    """Train, publish and serve a model that ranks feeds."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=messages, show_path=debug)],
    )


@app.command()
def train(
    *,
    users: int = DEMO.users,
    items: int = DEMO.items,
    interactions: int = DEMO.interactions,
    seed: int = DEMO.seed,
    network: NetworkName = DEMO.network,
    epochs: int = DEMO.epochs,
    batch_size: int = DEMO.batch_size,
    learning_rate: float = DEMO.learning_rate,
    patience: Annotated[int, typer.Option(help="Epochs without progress.")] = DEMO.patience,
    experiment: Annotated[str, typer.Option(help="MLflow's.")] = DEMO.experiment,
    name: Annotated[str, typer.Option(help="Registered model.")] = DEMO.registered_name,
    alias: Annotated[str, typer.Option(help="Points to the new version.")] = DEMO.alias,
    tracking_uri: TrackingUri = None,
) -> None:
    """Train a model on a synthetic feed and register it in MLflow."""
    options = TrainOptions(
        users=users,
        items=items,
        interactions=interactions,
        seed=seed,
        network=network,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        experiment=experiment,
        registered_name=name,
        alias=alias,
        tracking_uri=tracking_uri,
    )
    from feedmodel.train import train as run_training

    run_training(options, messages)


@app.command()
def publish(
    model: Annotated[
        str, typer.Argument(help="models:/name@alias, models:/name/version or runs:/id/path.")
    ] = PRODUCTION,
    *,
    to: Annotated[
        str, typer.Option(help="s3://bucket/prefix/ or a folder; without it, data/bundles only.")
    ] = "",
    spec: Annotated[
        Path | None, typer.Option(help="Feature spec (JSON), instead of the run's own.")
    ] = None,
    users: Annotated[Path | None, typer.Option(help="User table, Parquet or CSV.")] = None,
    items: Annotated[Path | None, typer.Option(help="Item table.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Table of user-item pairs.")] = None,
    activation: Annotated[
        Literal["none", "sigmoid"], typer.Option(help="sigmoid where the model gives logits.")
    ] = "none",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Unpickling runs code that is in the model.")
    ] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make a bundle of a model in MLflow, hold it against torch, bring it to S3 or a folder."""
    from feedmodel.publish import PublishOptions, build_bundle
    from feedmodel.upload import upload

    options = PublishOptions(
        model,
        tracking_uri=tracking_uri,
        spec=spec,
        tables={"users": users, "items": items, "pairs": pairs},
        activation=activation,
        allow_pickle=allow_pickle,
    )
    with messages.status("Publishing") as status:
        built = build_bundle(options, status.update)
        published = upload(built.folder, to) if to else None
    uri = published.uri if published else str(built.folder)
    facts = {
        "model": built.manifest.model_version,
        "bundle": uri,
        "digest": built.manifest.digest,
        "size": f"{built.size_bytes / 1e6:.1f} MB",
        "parity": f"{built.parity:.1e} at most between torch and ONNX, {built.rows:,} rows",
        "batches": "yes" if built.manifest.batches else "no: a run for each request",
    }
    if published:
        facts["uploaded"] = f"{published.uploaded} files" if published.uploaded else "nothing new"
    print_facts(output, facts)
    if uri.startswith("s3://"):
        print_whole(
            output,
            f"sam deploy --parameter-overrides ModelUri={uri} ModelDigest={built.manifest.digest}",
        )


@app.command()
def serve(
    *,
    model: Annotated[
        str | None, typer.Option(help="Model in MLflow.", show_default=PRODUCTION)
    ] = None,
    network: Network = None,
    train: Annotated[bool, typer.Option("--train", help="Train anew first.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Build the bundle anew.")] = False,
    front: Front = "lambda",
    host: Host = "127.0.0.1",
    port: Port = 8_000,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Execution environments, one request each.")
    ] = 2,
    memory: Memory = 1_769,
    timeout: Timeout = 10,
    show_answer: Annotated[bool, typer.Option(help="Send a request, show the ranking.")] = False,
    env: Variables = [],  # noqa: B006 Typer copies it
) -> None:
    """Serve a model over HTTP: the local Lambda, and moto as its AWS. Trains the first time."""
    from feedops.serve import ServeOptions
    from feedops.serve import serve as run_server

    run_server(
        ServeOptions(
            model=model,
            network=network,
            train=train,
            publish=publish,
            front=front,
            host=host,
            port=port,
            concurrency=concurrency,
            memory_mb=memory,
            timeout_s=timeout,
            show_answer=show_answer,
            variables=variables_of(env),
        ),
        output,
    )


@app.command()
def run(
    *,
    network: Network = None,
    front: Front = "lambda",
    host: Host = "127.0.0.1",
    port: Port = 8_000,
) -> None:
    """All of it: train where there is no model yet, publish, serve, and show a ranked answer."""
    from feedops.serve import ServeOptions
    from feedops.serve import serve as run_server

    options = ServeOptions(network=network, front=front, host=host, port=port, show_answer=True)
    run_server(options, output)


@app.command()
def invoke(
    *,
    event: Annotated[
        str, typer.Option("--event", "-e", help="JSON file, or - for standard input.")
    ],
    bundle: Annotated[
        Path | None, typer.Option(help="Folder.", show_default="the newest in data/bundles")
    ] = None,
    memory: Memory = 1_769,
    timeout: Timeout = 10,
    env: Variables = [],  # noqa: B006 Typer copies it
) -> None:
    """Send one event to the function on the real runtime, and print what it returns."""
    from feedops.emulator import Function
    from feedops.invoke import invoke as run_once
    from feedops.invoke import read_event
    from feedops.releases import manifest_of, newest_bundle
    from feedops.workspace import FUNCTION, scratch_folder

    payload = read_event(event)
    folder = (bundle or newest_bundle()).absolute()
    manifest_of(folder)
    variables = {"MODEL_URI": str(folder)} | variables_of(env)
    function = Function(FUNCTION, variables, memory_mb=memory, timeout_s=timeout)
    with scratch_folder() as scratch:
        result = asyncio.run(run_once(function, payload, scratch))
    for line in result.log:
        typer.echo(line, err=True)
    if result.error:
        raise result.error
    typer.echo(json.dumps(result.answer, indent=2, ensure_ascii=False))


@app.command()
def build(
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(help="For the model layer.", show_default="layers/model/bundle"),
    ] = None,
    architecture: Annotated[
        Literal["x86_64", "arm64"], typer.Option(help="As the stack's parameter Architecture.")
    ] = "x86_64",
) -> None:
    """Build function and layers with SAM, without Docker, into .aws-sam/build."""
    from feedops.budget import measure, print_budget
    from feedops.build import BUILD, BUNDLE
    from feedops.build import build as run_build

    with messages.status("Building"):
        run_build(BUILD, bundle or BUNDLE, architecture)
    print_budget(measure(), output)


@app.command()
def dashboard(
    *,
    metrics: Annotated[
        list[Path], typer.Option(help="An environment's log, from data/logs; repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("dashboard.png"),
) -> None:
    """Draw the stack's CloudWatch dashboard from the metrics of a local run."""
    from feedops.dashboard import render

    render(metrics, out)
    print_whole(output, str(out))


@app.command()
def budget(
    build: Annotated[
        Path | None, typer.Argument(help="Folder.", show_default=".aws-sam/build")
    ] = None,
) -> None:
    """Show the build's size by part and dependency; fail where it is over the bar."""
    from feedops.budget import measure, print_budget
    from feedops.build import BUILD

    print_budget(measure(build or BUILD), output)


bench.register(app)


def main() -> None:
    app()
