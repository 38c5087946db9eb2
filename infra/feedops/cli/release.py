"""Commands that change or show what a deployed stack serves."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feedmodel.publish.names import EXPECTED_TOLERANCE
from feedops.cli.app import messages, output
from feedops.cli.options import (
    IN_PRODUCTION,
    ExpectOption,
    ExtensionsOption,
    StackOption,
    ToleranceOption,
    TrackingUriOption,
    VerifyKeyOption,
    check_verify_key,
)

if TYPE_CHECKING:
    from feedmodel.publish.build import PublishOptions


def release(
    model: Annotated[
        str,
        typer.Argument(
            help="A model in MLflow, or a bundle that is published: s3://.../sha256-.../, as for a "
            "model that needs more options of `feedrank publish`."
        ),
    ] = IN_PRODUCTION,
    *,
    stack: StackOption,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the change set and delete it; upload nothing."),
    ] = False,
    realign: Annotated[
        bool,
        typer.Option(
            "--realign",
            help="After a rollback: first point the alias to CloudFormation's version again, which "
            "serves until the new one does.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end of another change of the stack.")
    ] = False,
    expect: ExpectOption = None,
    tolerance: ToleranceOption = EXPECTED_TOLERANCE,
    verify_key: VerifyKeyOption = None,
    extensions: ExtensionsOption = None,
    tracking_uri: TrackingUriOption = None,
) -> None:
    """Publish a model and give it to a stack as its one change; show how its traffic shifts."""
    from feedops.release.release import release as run_release

    check_verify_key(verify_key)

    def options() -> "PublishOptions":
        from feedmodel.publish.build import PublishOptions
        from feedrank.extensions import load_extensions_file

        if extensions:
            load_extensions_file(extensions)
        return PublishOptions(
            model,
            tracking_uri=tracking_uri,
            verify_key=verify_key,
            expect=expect,
            tolerance=tolerance,
        )

    run_release(
        model, stack, options, output, messages, dry_run=dry_run, realign=realign, wait=wait
    )


def rollback(
    *,
    stack: StackOption,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="Number of a version of the function.",
            show_default="the newest earlier one with another bundle",
        ),
    ] = None,
) -> None:
    """Stop a release that is under way, or else serve an earlier version within seconds."""
    from feedops.release.rollback import rollback as run_rollback

    run_rollback(stack, to, output)


def status(*, stack: StackOption) -> None:
    """Show what a stack serves: versions, shares of traffic, digests, alarms."""
    from feedops.release.status import status as show_status

    show_status(stack, output)


def tail(
    *,
    stack: Annotated[
        str | None,
        typer.Option("--stack", metavar="NAME", help="Name of the stack, such as feedrank-prod."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="The environments of `feedrank serve` instead.")
    ] = False,
    kind: Annotated[
        Literal["all", "requests", "decisions", "errors"],
        typer.Option(help="all: requests, decisions, and errors of any kind."),
    ] = "all",
    user: Annotated[
        str,
        typer.Option(help="Decisions for this user alone: an id, or its hash."),
    ] = "",
    request_id: Annotated[str, typer.Option(help="Lines of this request alone.")] = "",
    response_status: Annotated[
        str, typer.Option("--status", help="Requests with this status alone: 422, or 5xx.")
    ] = "",
    slower_than_ms: Annotated[
        float, typer.Option("--slower-than", min=0.0, metavar="MS", help="Slower ones alone.")
    ] = 0.0,
    since_minutes: Annotated[
        float, typer.Option("--since", min=0.0, metavar="MINUTES", help="Begin that long ago.")
    ] = 1.0,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for more until Ctrl-C.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they are.")] = False,
) -> None:
    """Show requests and decisions as they come, of a stack or of this machine."""
    from feedops.release.lines import Filter
    from feedops.release.tail import minutes_ago
    from feedops.release.tail import tail as run_tail

    if local == (stack is not None):
        raise typer.BadParameter("give either --stack or --local")
    if not re.fullmatch(r"([1-5]\d\d|[1-5]xx)?", response_status):
        raise typer.BadParameter(f"--status {response_status}: give one such as 422, or 5xx")
    chosen = Filter(
        kind, response_status, slower_than_ms, user, request_id, minutes_ago(since_minutes)
    )
    run_tail(stack, chosen, output, follow=follow, as_json=as_json)


def doctor(
    *,
    stack: Annotated[
        str | None,
        typer.Option(
            "--stack",
            metavar="NAME",
            help="Name of the stack.",
            show_default="that of --config-env",
        ),
    ] = None,
    config_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment in samconfig.toml: dev, staging, prod."),
    ] = None,
) -> None:
    """Check what would stop a deploy or a release: machine, parameters, quotas, rights, stack."""
    from feedops.release.doctor import doctor as run_doctor

    run_doctor(stack, config_env, output)
