"""The command that says what a rate of requests needs and costs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from feedops.cli.app import output
from feedops.display import print_whole


def plan(
    *,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1_000_000,
            help="Requests/s at the busiest time; for a CSV file, what its highest is scaled to.",
            show_default="10000, or as the file says",
        ),
    ] = None,
    curve: Annotated[
        str,
        typer.Option(
            metavar="CURVE",
            help="constant, daily, spiky, or a CSV file with the columns seconds and "
            "requests_per_s.",
        ),
    ] = "constant",
    bench: Annotated[
        Path | None,
        typer.Option(
            help="Results of `feedrank bench`.", show_default="the committed ones, of 50 items"
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Log with Lambda's REPORT lines, text or JSON: durations, inits, memory.",
        ),
    ] = None,
    p50_ms: Annotated[
        float | None, typer.Option(min=0.01, help="Duration; takes --p95-ms and --p99-ms too.")
    ] = None,
    p95_ms: Annotated[float | None, typer.Option(min=0.01, help="Duration.")] = None,
    p99_ms: Annotated[float | None, typer.Option(min=0.01, help="Duration.")] = None,
    init_ms: Annotated[
        float | None, typer.Option(min=1, max=60_000, help="Init of an environment.")
    ] = None,
    restore_ms: Annotated[
        float | None, typer.Option(min=1, max=60_000, help="Restore of one by SnapStart.")
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(min=128, max=10_240, help="MB of the function.", show_default="1769"),
    ] = None,
    server_per_s: Annotated[
        float | None, typer.Option(min=0.1, help="Requests/s of one uvicorn worker.")
    ] = None,
    gpu_per_s: Annotated[
        float, typer.Option(min=0.0, help="Requests/s of one GPU instance; 0: as its CPUs alone.")
    ] = 0.0,
    concurrency: Annotated[
        int,
        typer.Option(min=0, help="Concurrency of the account; 0: raised as far as needed."),
    ] = 0,
    keep_alive_s: Annotated[
        float | None,
        typer.Option(
            min=10,
            max=7_200,
            help="Idle time of an environment before it is removed.",
            show_default="600",
        ),
    ] = None,
    target_p99_ms: Annotated[
        float, typer.Option(min=1, help="p99 that every minute has to hold.")
    ] = 300.0,
    delivery: Annotated[
        Literal["logs", "direct"], typer.Option(help="How decision records reach Firehose.")
    ] = "logs",
    reads: Annotated[
        float,
        typer.Option(
            min=0.0, help="DynamoDB read units of a request; 0: features are in the bundle."
        ),
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(help="PNG file to draw the day into.")] = None,
) -> None:
    """Say what a rate of requests needs: environments, quotas, parameters, and the bill."""
    import json

    from feedops.plan import options, picture, report
    from feedops.plan.plan import make

    given = options.Given(
        rate, curve, bench, log, (p50_ms, p95_ms, p99_ms), init_ms, restore_ms, memory,
        server_per_s, gpu_per_s, concurrency, keep_alive_s, target_p99_ms, delivery, reads,
    )  # fmt: skip
    if plot:
        picture.check(plot)
    made = make(options.workload(given))
    if plot:
        picture.draw(made, plot)
    if as_json:
        print_whole(output, json.dumps(report.as_json(made), indent=1))
        return
    report.print_plan(made, output)
    if plot:
        print_whole(output, str(plot))
