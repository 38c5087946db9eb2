"""The `feedrank` command, put together. Heavy libraries are imported by the command that needs
them, so that `feedrank --help` starts quickly."""

import logging
from typing import Annotated

import typer
from rich.logging import RichHandler

from feedops.cli import (
    bundles,
    cloudwatch,
    decisions,
    features,
    local,
    models,
    plan,
    release,
    stack,
)
from feedops.cli.app import CommandLine, Group, MainGroup, messages

app = CommandLine(cls=MainGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def show_version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"feedrank {version('feedrank')}")
        raise typer.Exit


@app.callback()
def feedrank(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not its text alone.")
    ] = False,
    _version: Annotated[
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


app.add_commands("On this machine", local.run, local.serve, local.rank, local.invoke)
app.add_commands(
    "Models",
    models.train,
    models.promote,
    models.sign,
    bundles.spec,
    models.publish,
    bundles.check,
    models.ui,
    checkout=False,
)
app.add_commands(
    "Deployed stack",
    stack.build,
    stack.budget,
    cloudwatch.dashboard,
    plan.plan,
    release.doctor,
)
app.add_commands(
    "Deployed stack",
    release.release,
    release.rollback,
    release.status,
    release.tail,
    checkout=False,
)

decision_records = CommandLine(cls=Group, no_args_is_help=True)
decision_records.add_commands("Commands", decisions.erase, checkout=False)
app.add_typer(
    decision_records,
    name="decisions",
    help="Erase a user's decision records.",
    rich_help_panel="Deployed stack",
)

live_features = CommandLine(cls=Group, no_args_is_help=True)
live_features.add_commands(
    "Commands",
    features.load,
    features.get,
    features.stats,
    features.diff,
    features.feast_repo,
    features.feast_spec,
    checkout=False,
)
app.add_typer(
    live_features,
    name="features",
    help="Load rows into a live feature store, look at them, or map a spec to a Feast store.",
    rich_help_panel="Deployed stack",
)
