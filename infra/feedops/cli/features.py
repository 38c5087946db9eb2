"""Commands about the rows of a live feature store."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from feedops.cli.app import output
from feedops.errors import OperationError

STORES = (
    "The store: dynamodb://table, or valkey://host:port with FEATURES_PASSWORD or FEATURES_SECRET."
)
BundleOption = Annotated[
    Path,
    typer.Option(
        exists=True, file_okay=False, help="The bundle that is served: rows have its layout."
    ),
]


def load(
    *,
    tables: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="DIRECTORY",
            exists=True,
            file_okay=False,
            help="Where users, items and pairs are, Parquet or CSV.",
        ),
    ],
    uri: Annotated[str, typer.Option("--to", metavar="STORE", help=STORES)],
    bundle: BundleOption,
    as_of: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The moment that the tables describe, such as 2026-11-25T06:00:00Z. Rows of a "
            "newer one stay.",
        ),
    ],
    users_alone: Annotated[
        bool, typer.Option("--users-alone", help="Leave items to the bundle's snapshot.")
    ] = False,
    writes_per_second: Annotated[
        int, typer.Option(min=1, help="Write units of up to a KB a second: the budget.")
    ] = 1_000,
    expire_days: Annotated[
        float, typer.Option(min=0.0, help="Days after --as-of when a row expires; 0 for never.")
    ] = 0.0,
) -> None:
    """Load feature tables into a store, and read a sample back. It can be stopped and repeated."""
    from feedops.features.load import LoadOptions, moment
    from feedops.features.load import load as run_load

    run_load(
        LoadOptions(
            tables, bundle, uri, moment(as_of), writes_per_second, expire_days, users_alone
        ),
        output,
    )


def get(
    *,
    uri: Annotated[str, typer.Option("--from", metavar="STORE", help=STORES)],
    bundle: BundleOption,
    user: Annotated[str, typer.Option(help="A user's id.")] = "",
    item: Annotated[str, typer.Option(help="An item's id.")] = "",
) -> None:
    """Show a row as it is served, by the names of the spec."""
    from feedops.features.show import show

    if bool(user) == bool(item):
        raise OperationError("give a --user or an --item")
    show(uri, bundle, "user" if user else "item", user or item, output)


SizeOption = Annotated[
    int, typer.Option("--sample", min=1, help="Users, and items, of the snapshot that are read.")
]


def stats(
    *,
    uri: Annotated[str, typer.Option("--from", metavar="STORE", help=STORES)],
    bundle: BundleOption,
    size: SizeOption = 1_000,
) -> None:
    """Show how many of the snapshot's ids a store has, how old its rows are, and how their cells
    are distributed beside the snapshot's."""
    from feedops.features.compare import stats as run_stats

    run_stats(uri, bundle, size, output)


def diff(
    *,
    uri: Annotated[str, typer.Option("--from", metavar="STORE", help=STORES)],
    bundle: BundleOption,
    size: SizeOption = 1_000,
) -> None:
    """Show in which features a store's rows differ from the snapshot's, and by how much."""
    from feedops.features.compare import diff as run_diff

    run_diff(uri, bundle, size, output)


def feast_repo(
    *,
    tables: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="DIRECTORY",
            exists=True,
            file_okay=False,
            help="Where feature_spec.json, users and items are, as a training run logs them.",
        ),
    ],
    directory: Annotated[
        Path, typer.Option("--to", metavar="DIRECTORY", help="Where the repository goes.")
    ],
    as_of: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The moment that the tables describe, such as 2026-11-25T06:00:00Z.",
        ),
    ],
    project: Annotated[str, typer.Option(help="The Feast project.")] = "feed",
    region: Annotated[
        str, typer.Option(help="The region of the DynamoDB store; without one it is SQLite.")
    ] = "",
    ttl_days: Annotated[
        float, typer.Option(min=0.0, help="Days after which Feast's rows expire; 0 for never.")
    ] = 0.0,
) -> None:
    """Write a Feast repository of feature tables, and the spec that reads them from Feast."""
    from feedops.features.feast_repo import RepoOptions, write_repo

    options = RepoOptions(tables, directory, project, as_of, region, ttl_days)
    write_repo(options, output)


def feast_spec(
    *,
    repository: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="DIRECTORY",
            exists=True,
            file_okay=False,
            help="The Feast repository, after `feast apply`; its feature_store.yaml is here.",
        ),
    ],
    spec: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The feature spec to map.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where the mapped spec goes.")],
    mapped: Annotated[
        list[str],
        typer.Option(
            "--map",
            metavar="NAME=VIEW:FEATURE",
            default_factory=list,
            show_default=False,
            help="A feature that Feast has under another name, or in several views; repeatable.",
        ),
    ],
    python: Annotated[Path, typer.Option(help="The Python that has Feast's SDK.")] = Path(
        sys.executable
    ),
) -> None:
    """Map a feature spec to a Feast repository; refuse what the function doesn't read from it."""
    from feedops.features.feast_spec import SpecOptions, write_spec

    references = dict(each.partition("=")[::2] for each in mapped)
    write_spec(SpecOptions(repository, spec, to, python, references), output)
