"""Commands that change or show what a deployed stack serves."""

from typing import TYPE_CHECKING, Annotated

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

    run_release(model, stack, options, output, messages, dry_run=dry_run, realign=realign)


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
