"""Options and arguments that several commands share: each is named and explained here, once."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from feedmodel.demo.options import NetworkName, TrainOptions
from feedmodel.publish.names import PRODUCTION
from feedops.errors import OperationError

DEMO = TrainOptions()
IN_PRODUCTION = f"models:/{DEMO.registered_name}@{PRODUCTION}"
VERIFY_KEY = "FEEDRANK_VERIFY_KEY"

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A model in MLflow: models:/name@alias, models:/name/version or runs:/id/path."
    ),
]
TrackingUriOption = Annotated[
    str | None,
    typer.Option(
        help="The MLflow tracking server or database.",
        show_default="MLFLOW_TRACKING_URI, or a database in data/mlflow",
    ),
]
NetworkOption = Annotated[
    NetworkName | None,
    typer.Option(
        help="Serve the newest model with this network; train one first if there is none."
    ),
]
FrontOption = Annotated[
    Literal["lambda", "uvicorn"] | None,
    typer.Option(
        help="lambda: the Lambda runtime, behind a local API Gateway. "
        "uvicorn: the same app on a web server.",
        show_default="lambda; uvicorn where the Lambda runtime doesn't run, as on macOS",
    ),
]
HostOption = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all addresses.")]
ExpectOption = Annotated[
    Path | None,
    typer.Option(
        help="Scores that your own evaluation gave, Parquet or CSV: user_id, item_id, score, and "
        "what the requests had. The bundle has to give the same.",
    ),
]
ToleranceOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        help="Largest difference to an expected score in [0, 1]; of others this "
        "share of how far apart they lie.",
    ),
]
SpecOption = Annotated[
    Path | None,
    typer.Option(help="Feature spec (JSON).", show_default="the one that the run has logged"),
]
UsersOption = Annotated[
    Path | None,
    typer.Option(help="User features, Parquet or CSV.", show_default="those of the run"),
]
ItemsOption = Annotated[
    Path | None,
    typer.Option(help="Item features, Parquet or CSV.", show_default="those of the run"),
]
PairsOption = Annotated[
    Path | None,
    typer.Option(
        help="Features of user-item pairs, Parquet or CSV.", show_default="those of the run"
    ),
]
VerifyKeyOption = Annotated[
    Path | None,
    typer.Option(
        envvar=VERIFY_KEY,
        help="Public EC key (PEM): refuse a model that its owner has not signed.",
    ),
]
ExtensionsOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FEEDRANK_EXTENSIONS",
        exists=True,
        dir_okay=False,
        help="Python file whose EXPRESSIONS the feature spec uses, as the function has it.",
    ),
]
StackOption = Annotated[
    str, typer.Option("--stack", metavar="NAME", help="Name of the stack, such as feedrank-prod.")
]
PortOption = Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")]
MemoryOption = Annotated[
    int,
    typer.Option(
        min=128,
        max=10_240,
        help="Memory size of the function, MB. It sets the number of threads; "
        "it is not enforced on this machine.",
    ),
]
TimeoutOption = Annotated[
    int,
    typer.Option(
        min=1, max=900, help="Seconds that the function has to start, and for each request."
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        help="Directory of a published bundle.", show_default="the newest in data/bundles"
    ),
]
VariablesOption = Annotated[
    list[str],
    typer.Option(
        "--env",
        metavar="NAME=VALUE",
        default_factory=list,
        show_default=False,
        help="Environment variable for the function; repeatable.",
    ),
]


def variables_of(assignments: list[str]) -> dict[str, str]:
    for assignment in assignments:
        if "=" not in assignment:
            raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE")
    return dict(assignment.split("=", 1) for assignment in assignments)


def check_verify_key(key: Path | None) -> None:
    """An empty variable, as of a CI's secret that is missing, must not switch verification off."""
    if key is None and VERIFY_KEY in os.environ:
        raise OperationError(f"{VERIFY_KEY}: is empty; name the public key, or unset it")
