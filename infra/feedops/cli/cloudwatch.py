"""The command that shows what CloudWatch would show."""

from pathlib import Path
from typing import Annotated

import typer

from feedops.cli.app import output
from feedops.display import print_whole


def dashboard(
    *,
    metrics: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Log of a local Lambda environment, data/logs/*/environment-*.log; repeatable.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("dashboard.png"),
) -> None:
    """Draw the stack's CloudWatch dashboard from the logs of `feedrank serve`."""
    from feedops.cloudwatch.dashboard import render

    render(metrics, out)
    print_whole(output, str(out))
