"""Commands about the decision records that the function has written."""

from typing import Annotated, Literal

import typer

from feedops.cli.app import output


def erase(
    *,
    user: Annotated[str, typer.Option(help="The user's id.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="Where the records are: s3://bucket/prefix/, or the directory that "
            "DECISION_LOG_DIR named.",
        ),
    ],
    ids: Annotated[
        Literal["number", "text"], typer.Option(help="The kind of the ids in the records.")
    ] = "number",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the user's records, and change nothing.")
    ] = False,
    key_env: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            default_factory=list,
            show_default=False,
            help="Environment variable that holds a key with which ids were hashed; repeatable.",
        ),
    ],
    log_groups: Annotated[
        str,
        typer.Option(
            metavar="PREFIX",
            help="Log groups to list at the end: their lines can't be erased, and expire.",
        ),
    ] = "/aws/lambda/feedrank",
) -> None:
    """Erase a user's decision records in all versions, and check that none is left."""
    from feedops.decisions.erasure import erase as run_erasure
    from feedops.decisions.erasure import user_id

    run_erasure(user_id(user, ids), source, key_env, log_groups, output, dry_run=dry_run)
