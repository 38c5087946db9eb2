"""The `feedrank` command. What is heavy is imported by the command that needs it."""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from feedmodel.dates import EXAMPLE as TIME_EXAMPLE
from feedmodel.options import CANDIDATE, PRODUCTION, NetworkName, TrainOptions
from feedops.display import print_facts, print_whole, steps
from feedops.errors import OperationError
from feedops.workspace import is_checkout
from feedrank.errors import FeedrankError

DEMO = TrainOptions()
WITHOUT_CHECKOUT = {"train", "sign", "publish", "promote", "ui", "erase"}
IN_PRODUCTION = f"models:/{DEMO.registered_name}@{PRODUCTION}"

VERIFY_KEY = "FEEDRANK_VERIFY_KEY"

F = TypeVar("F", bound=Callable[..., Any])

output = Console()
messages = Console(stderr=True)


class _FlagsWithoutType:
    """`--debug`, not `--debug <bool>`: it takes no value."""

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 Typer keeps these types to itself
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_FlagsWithoutType, TyperCommand):
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        if self.name not in WITHOUT_CHECKOUT and not is_checkout():
            raise OperationError(
                f"feedrank {self.name} needs the project's checkout (handler, templates, events): "
                "clone it and run `make run`; an installed wheel trains and publishes"
            )
        return super().invoke(ctx)


class Commands(_FlagsWithoutType, TyperGroup):
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
        except OSError as error:
            if ctx.params["debug"] or not error.filename:
                raise
            messages.print(Text(f"{error.filename}: {error.strerror}", "bold red"), soft_wrap=True)
            raise typer.Exit(1) from error


class App(typer.Typer):
    def command(self, *args: Any, **kwargs: Any) -> Callable[[F], F]:  # noqa: ANN401
        return super().command(*args, cls=Command, **kwargs)


app = App(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def show_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"feedrank {version('feedrank')}")
        raise typer.Exit


def variables_of(assignments: list[str]) -> dict[str, str]:
    for assignment in assignments:
        if "=" not in assignment:
            raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE")
    return dict(assignment.split("=", 1) for assignment in assignments)


TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="Where MLflow keeps its runs.", show_default="MLFLOW_TRACKING_URI, or data/mlflow"
    ),
]
Network = Annotated[
    NetworkName | None,
    typer.Option(help="Serve the newest model of this network; train one where there is none."),
]
Front = Annotated[
    Literal["lambda", "uvicorn"] | None,
    typer.Option(
        help="lambda: the real Lambda runtime. uvicorn: the same app on a plain web server.",
        show_default="lambda; uvicorn where the Lambda runtime doesn't run, as on macOS",
    ),
]
Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")]
Memory = Annotated[
    int,
    typer.Option(
        min=128,
        max=10_240,
        help="MB that the function is told it has, which decides its threads; not enforced here.",
    ),
]
Timeout = Annotated[
    int,
    typer.Option(min=1, max=900, help="Seconds for the function's start, and for each request."),
]
Bundle = Annotated[
    Path | None,
    typer.Option(help="A bundle's folder.", show_default="the newest in data/bundles"),
]
Variables = Annotated[
    list[str],
    typer.Option(
        "--env", metavar="NAME=VALUE", help="An environment variable for the function; repeatable."
    ),
]


@app.callback()
def feedrank(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not its text alone.")
    ] = False,
    version: Annotated[  # noqa: ARG001 its callback has it
        bool,
        typer.Option(
            "--version",
            callback=lambda value: show_version(wanted=value),
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
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
    users: Annotated[int, typer.Option(help="Users of the synthetic feed.")] = DEMO.users,
    items: Annotated[int, typer.Option(help="Items of the synthetic feed.")] = DEMO.items,
    interactions: Annotated[
        int, typer.Option(help="Items shown to users, clicked or not.")
    ] = DEMO.interactions,
    seed: Annotated[
        int, typer.Option(help="Of feed and weights: the same seed, the same model.")
    ] = DEMO.seed,
    network: Annotated[NetworkName, typer.Option(help="What is trained.")] = DEMO.network,
    epochs: Annotated[int, typer.Option(help="Epochs at most.")] = DEMO.epochs,
    batch_size: Annotated[int, typer.Option(help="Rows in a step of training.")] = DEMO.batch_size,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = DEMO.learning_rate,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without progress.")
    ] = DEMO.patience,
    experiment: Annotated[
        str, typer.Option(help="The MLflow experiment of the run.")
    ] = DEMO.experiment,
    name: Annotated[
        str, typer.Option(help="The name to register the model by.")
    ] = DEMO.registered_name,
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
    from feedmodel.demo.train import train as run_training

    result = run_training(options, messages)
    if alias == CANDIDATE:
        print_whole(
            output,
            f"models:/{name}/{result.version} is the candidate; compare it with "
            "what is in production, and let it take over: feedrank promote",
        )


@app.command()
def promote(
    version: Annotated[
        str,
        typer.Argument(
            help=f"A version of {DEMO.registered_name}, or models:/name/version, or @alias."
        ),
    ] = f"models:/{DEMO.registered_name}@{CANDIDATE}",
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where it ranks worse, or where nobody can tell."),
    ] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Compare a version with the one in production, and let it take over unless it ranks worse."""
    from feedops.models.promote import promote as run_promotion

    name = f"models:/{DEMO.registered_name}/{version}" if version.isdecimal() else version
    run_promotion(name, tracking_uri=tracking_uri, force=force, console=output)


@app.command()
def ui(
    *,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 5_000,
    tracking_uri: TrackingUri = None,
) -> None:
    """Open MLflow's pages on this machine: runs, metrics, models and their versions."""
    from feedops.local.ui import serve_ui

    serve_ui(port, tracking_uri, output)


@app.command()
def sign(
    model: Annotated[
        str, typer.Argument(help="models:/name@alias, models:/name/version or runs:/id/path.")
    ] = IN_PRODUCTION,
    *,
    key: Annotated[
        Path,
        typer.Option(help="Private EC key (PEM); FEEDRANK_KEY_PASSWORD has its password, if any."),
    ],
    tracking_uri: TrackingUri = None,
) -> None:
    """Sign a model in MLflow by OpenSSF model signing, for publishing to verify."""
    from feedmodel.publish.signing import PASSWORD_VARIABLE, sign_model

    password = os.environ.get(PASSWORD_VARIABLE)
    print_facts(output, {"signed": "\n".join(sign_model(model, tracking_uri, key, password))})


@app.command()
def publish(
    model: Annotated[
        str, typer.Argument(help="models:/name@alias, models:/name/version or runs:/id/path.")
    ] = IN_PRODUCTION,
    *,
    to: Annotated[
        str, typer.Option(help="s3://bucket/prefix/ or a folder; without it, data/bundles only.")
    ] = "",
    spec: Annotated[
        Path | None, typer.Option(help="Feature spec (JSON), instead of the run's own.")
    ] = None,
    users: Annotated[Path | None, typer.Option(help="User table, Parquet or CSV.")] = None,
    items: Annotated[Path | None, typer.Option(help="Item table, Parquet or CSV.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Table of user-item pairs, Parquet or CSV.")
    ] = None,
    activation: Annotated[
        Literal["none", "sigmoid"], typer.Option(help="sigmoid where the model gives logits.")
    ] = "none",
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Publish a pickled model too; that runs code in it."),
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=f"The moment that the tables describe, such as {TIME_EXAMPLE}.",
            show_default="the run's tag feedrank.snapshot_as_of",
        ),
    ] = None,
    verify_key: Annotated[
        Path | None,
        typer.Option(
            envvar=VERIFY_KEY,
            help="Public EC key (PEM): a model that its owner has not signed is refused.",
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make a bundle of a model in MLflow, compare it with torch, copy it to S3 or a folder."""
    from feedmodel.publish.upload import check_target, upload

    if to:
        check_target(to)
    from feedmodel.publish.build import PublishOptions, build_bundle

    if verify_key is None and VERIFY_KEY in os.environ:
        raise OperationError(f"{VERIFY_KEY}: is empty; name the public key, or unset it")
    options = PublishOptions(
        model,
        tracking_uri=tracking_uri,
        spec=spec,
        tables={"users": users, "items": items, "pairs": pairs},
        activation=activation,
        allow_pickle=allow_pickle,
        as_of=as_of,
        verify_key=verify_key,
    )
    with steps(messages, "Publishing") as say:
        built = build_bundle(options, say)
        published = upload(built.folder, to) if to else None
    uri = published.uri if published else str(built.folder)
    facts = {
        "model": built.manifest.model_version,
        "bundle": uri,
        "digest": built.manifest.digest,
        "trained": built.manifest.trained_at or "unknown: MLflow has no run of it",
        "snapshot": built.manifest.snapshot_as_of or f"no date; give it: --as-of {TIME_EXAMPLE}",
        "published": built.manifest.published_at or "",
        "size": f"{built.size_bytes / 1e6:.1f} MB",
        "parity": f"{built.parity:.1e} at most between torch and ONNX, {built.rows:,} rows",
        "batches": "yes" if built.manifest.batches else "no: a run for each request",
    }
    if built.missing:
        cells = (f"{column} {count:,}" for column, count in built.missing.items())
        facts["empty cells"] = f"{', '.join(cells)}; the spec's defaults stand in"
    if published:
        facts["uploaded"] = f"{published.uploaded} files" if published.uploaded else "nothing new"
    print_facts(output, facts)
    if uri.startswith("s3://"):
        print_whole(
            output, "To deploy it, give the stack this parameter, as the README's Deploy shows:"
        )
        print_whole(output, f"ModelUri={uri}")


@app.command()
def serve(
    *,
    model: Annotated[
        str | None, typer.Option(help="A model in MLflow, by its URI.", show_default=IN_PRODUCTION)
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle's folder, instead of a model in MLflow.")
    ] = None,
    tracking_uri: TrackingUri = None,
    network: Network = None,
    train: Annotated[bool, typer.Option("--train", help="Train a new model first.")] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Build the bundle again, where there is one already.")
    ] = False,
    front: Front = None,
    host: Host = "127.0.0.1",
    port: Port = 8_000,
    concurrency: Annotated[
        int,
        typer.Option(min=1, max=64, help="Lambda environments; each takes one request at a time."),
    ] = 2,
    memory: Memory = 1_769,
    timeout: Timeout = 10,
    show_answer: Annotated[
        bool, typer.Option("--show-answer", help="Send a request first, and show the ranking.")
    ] = False,
    env: Variables = [],  # noqa: B006 Typer copies it
) -> None:
    """Serve a model over HTTP, by the Lambda runtime on this machine. Trains the first time."""
    from feedops.local.serve import ServeOptions
    from feedops.local.serve import serve as run_server

    run_server(
        ServeOptions(
            model=model,
            bundle=bundle,
            tracking_uri=tracking_uri,
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
    front: Front = None,
    host: Host = "127.0.0.1",
    port: Port = 8_000,
) -> None:
    """All of it: train where there is no model yet, publish, serve, and show a ranked answer."""
    from feedops.local.serve import ServeOptions
    from feedops.local.serve import serve as run_server

    options = ServeOptions(network=network, front=front, host=host, port=port, show_answer=True)
    run_server(options, output)


@app.command()
def invoke(
    *,
    event: Annotated[
        str, typer.Option("--event", "-e", help="A JSON file of events/, or - for standard input.")
    ],
    bundle: Bundle = None,
    memory: Memory = 1_769,
    timeout: Timeout = 10,
    env: Variables = [],  # noqa: B006 Typer copies it
) -> None:
    """Send one event to the function on the real runtime, and print what it returns."""
    from feedops.local.emulator import Function
    from feedops.local.invoke import invoke as run_once
    from feedops.local.invoke import read_event
    from feedops.models.releases import manifest_of, newest_bundle
    from feedops.workspace import FUNCTION, scratch_folder

    given = variables_of(env)
    payload = read_event(event)
    folder = (bundle or newest_bundle()).absolute()
    manifest_of(folder)
    variables = {"MODEL_URI": str(folder)} | given
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
        typer.Option(
            help="The bundle that goes into the model layer.", show_default="layers/model/bundle"
        ),
    ] = None,
    architecture: Annotated[
        Literal["x86_64", "arm64"], typer.Option(help="The processor of the function.")
    ] = "x86_64",
) -> None:
    """Build function and layers with SAM, without Docker, into .aws-sam/build."""
    from feedops.stack import environments
    from feedops.stack.budget import measure, print_budget
    from feedops.stack.build import BUILD, BUNDLE
    from feedops.stack.build import build as run_build

    environments.check()
    with steps(messages, "Building function and layers with SAM, about a minute"):
        run_build(BUILD, bundle or BUNDLE, architecture)
    print_budget(measure(), output)


@app.command()
def dashboard(
    *,
    metrics: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="A log below data/logs; repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="The picture's file.")] = Path("dashboard.png"),
) -> None:
    """Draw the stack's CloudWatch dashboard from the metrics of a local run."""
    from feedops.cloudwatch.dashboard import render

    render(metrics, out)
    print_whole(output, str(out))


@app.command()
def budget(
    build: Annotated[
        Path | None, typer.Argument(help="The build's folder.", show_default=".aws-sam/build")
    ] = None,
) -> None:
    """Show the build's size by part and dependency; fail where it is over the bar."""
    from feedops.stack.budget import measure, print_budget
    from feedops.stack.build import BUILD

    print_budget(measure(build or BUILD), output)


decisions = App(cls=TyperGroup, no_args_is_help=True, help="What is kept of decisions.")
app.add_typer(decisions, name="decisions")


@decisions.command()
def erase(
    *,
    user: Annotated[str, typer.Option(help="The user's id.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="s3://bucket/prefix/, or a folder that DECISION_LOG_DIR named.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what there is, and change nothing.")
    ] = False,
    key_env: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="The environment variable with a key that ids were hashed with; repeatable.",
        ),
    ] = [],  # noqa: B006 Typer copies it
    log_groups: Annotated[
        str, typer.Option(metavar="PREFIX", help="Log groups to name, whose lines stay.")
    ] = "/aws/lambda/feedrank",
) -> None:
    """Erase a user's decision records, all versions of them, and prove that none is left."""
    from feedops.decisions.erasure import erase as run_erasure

    run_erasure(user, source, key_env, log_groups, output, dry_run=dry_run)
