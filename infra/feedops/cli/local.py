"""Commands that run the function on this machine."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from feedops.cli.app import output
from feedops.cli.options import (
    IN_PRODUCTION,
    BundleOption,
    FrontOption,
    HostOption,
    MemoryOption,
    NetworkOption,
    PortOption,
    TimeoutOption,
    TrackingUriOption,
    VariablesOption,
    variables_of,
)


def run(
    *,
    network: NetworkOption = None,
    front: FrontOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8_000,
) -> None:
    """Train a model if there is none, publish it, serve it, and show a ranked response."""
    from feedops.local.serve import serve as run_server
    from feedops.local.serve_options import ServeOptions

    options = ServeOptions(network=network, front=front, host=host, port=port, show_answer=True)
    run_server(options, output)


def serve(
    *,
    model: Annotated[
        str | None,
        typer.Option(help="URI of a model in MLflow.", show_default=IN_PRODUCTION),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Directory of a published bundle, instead of a model in MLflow."),
    ] = None,
    tracking_uri: TrackingUriOption = None,
    network: NetworkOption = None,
    train: Annotated[bool, typer.Option("--train", help="Train a new model first.")] = False,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Build the model's bundle again, even if there is one."),
    ] = False,
    front: FrontOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8_000,
    concurrency: Annotated[
        int,
        typer.Option(min=1, max=64, help="Lambda environments; each takes one request at a time."),
    ] = 2,
    memory: MemoryOption = 1_769,
    timeout: TimeoutOption = 10,
    show_answer: Annotated[
        bool,
        typer.Option("--show-answer", help="Send an example request first, and show the ranking."),
    ] = False,
    features: Annotated[
        Literal["dynamodb"] | None,
        typer.Option(
            help="Read features from a table of moto's DynamoDB that has the rows of the bundle.",
            show_default="the bundle's snapshot",
        ),
    ] = None,
    env: VariablesOption,
) -> None:
    """Serve a model over HTTP on the local Lambda runtime. Trains a model if there is none."""
    from feedops.local.serve import serve as run_server
    from feedops.local.serve_options import ServeOptions

    options = ServeOptions(
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
        features=features,
        variables=variables_of(env),
    )
    run_server(options, output)


def invoke(
    *,
    event: Annotated[
        str,
        typer.Option(
            "--event",
            "-e",
            help="JSON file with a Lambda event, such as events/predict.json; - is standard input.",
        ),
    ],
    bundle: BundleOption = None,
    memory: MemoryOption = 1_769,
    timeout: TimeoutOption = 10,
    env: VariablesOption,
) -> None:
    """Send one event to the function on the local Lambda runtime, and print what it returns."""
    from feedops.local.invoke import invoke_bundle, read_event

    variables = variables_of(env)
    result = invoke_bundle(
        read_event(event), bundle, variables, memory_mb=memory, timeout_s=timeout
    )
    for line in result.log:
        typer.echo(line, err=True)
    if result.error:
        raise result.error
    typer.echo(json.dumps(result.response, indent=2, ensure_ascii=False))


def rank(
    *,
    user: Annotated[str, typer.Option(help="The user's id.")],
    items: Annotated[
        str, typer.Option(metavar="ID,ID,...", help="The candidates' ids, with commas.")
    ],
    context: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE",
            default_factory=list,
            show_default=False,
            help="What the model reads of the moment, such as device=mobile; repeatable.",
        ),
    ],
    feature: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE,...",
            default_factory=list,
            show_default=False,
            help="A candidate feature, a value for each item; repeatable.",
        ),
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the outputs of which each score is made.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(help="Server to send it to.", show_default="a bundle on this machine"),
    ] = None,
    sign: Annotated[
        bool,
        typer.Option("--sign", help="Sign for AWS IAM, as a stack with Auth=iam wants it."),
    ] = False,
    header: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE",
            default_factory=list,
            show_default=False,
            help="Header for the server, such as authorization='Bearer ...'; repeatable.",
        ),
    ],
    bundle: BundleOption = None,
    env: VariablesOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print the response as JSON.")] = False,
) -> None:
    """Rank items for a user, and show the ranking."""
    from feedops.display import print_ranking
    from feedops.local.rank import RankRequest, rank_at, rank_with_bundle

    if url is None and (sign or header):
        raise typer.BadParameter("--sign and --header are of a request to a --url")
    if url is not None and (bundle or env):
        raise typer.BadParameter("--bundle and --env are of this machine: leave out --url")
    request = RankRequest(user, items, context, feature, explain=explain)
    if url is None:
        response = rank_with_bundle(request, bundle, variables_of(env))
    else:
        response = rank_at(url, request, variables_of(header), sign=sign)
    if as_json:
        typer.echo(json.dumps(response, indent=2, ensure_ascii=False))
    else:
        print_ranking(output, response)
