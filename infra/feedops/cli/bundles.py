"""Commands about what is published: a model's feature spec, and a bundle."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedmodel.publish.names import EXPECTED_TOLERANCE
from feedops.cli.app import messages, output
from feedops.cli.options import ExpectOption, ToleranceOption, TrackingUriOption
from feedops.display import print_facts, print_whole, steps
from feedops.errors import OperationError

if TYPE_CHECKING:
    from feedmodel.publish.drafts import TensorDescription
    from feedmodel.publish.tables import FeatureTable, TableName

TableOption = Annotated[Path | None, typer.Option(help="A feature table, Parquet or CSV.")]


def spec(
    *,
    model: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="A model in MLflow, such as models:/name@alias: draft a spec of its inputs and of "
            "the tables' columns.",
        ),
    ] = "",
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEC",
            help="Explain this spec (JSON) in words, read the tables as publishing would, and with "
            "--from compare it with the model's signature.",
        ),
    ] = None,
    users: TableOption = None,
    items: TableOption = None,
    pairs: TableOption = None,
    tracking_uri: TrackingUriOption = None,
) -> None:
    """Draft a feature spec from a model and its tables, or explain one in words."""
    from feedmodel.publish.drafts import draft
    from feedmodel.publish.files import read_frame
    from feedmodel.publish.signature import read_signature

    paths: dict[TableName, Path | None] = {"users": users, "items": items, "pairs": pairs}
    if not (model or check):
        raise OperationError("give a model with --from, or a spec with --check")
    inputs, outputs = read_signature(model, tracking_uri) if model else ([], [])
    if check:
        _explain(check, paths, inputs)
        return
    frames = {str(name): read_frame(path) for name, path in paths.items() if path}
    proposal = draft(inputs, frames, outputs)
    print_whole(output, json.dumps(proposal.spec, indent=2, ensure_ascii=False))
    for line in proposal.undecided:
        print_whole(messages, f"To decide: {line}")


def _explain(
    path: Path, paths: "dict[TableName, Path | None]", inputs: "list[TensorDescription]"
) -> None:
    from feedmodel.publish.drafts import differences
    from feedmodel.publish.explanation import explain
    from feedmodel.publish.tables import read_tables
    from feedmodel.publish.vocabularies import read_spec

    read = read_spec(path)
    for line in explain(read):
        print_whole(output, line)
    if wrong := list(differences(read, inputs)):
        raise OperationError("\n".join(["the spec is not of this model:", *wrong]))
    if not any(paths.values()):
        return
    for name, table in read_tables(read, paths).items():
        if paths[name]:
            print_whole(output, f"Table {name}: {len(table.ids):,} rows{_counts(table)}")


def _counts(table: "FeatureTable") -> str:
    counts = [f"{column} {n:,} empty" for column, n in table.missing.items() if n]
    counts += [f"{column} {n:,} not in its vocabulary" for column, n in table.unknown.items() if n]
    return "".join(f"; {text}" for text in counts)


def check(
    bundle: Annotated[str, typer.Argument(help="A bundle's directory, or s3://bucket/prefix/.")],
    *,
    expect: ExpectOption = None,
    tolerance: ToleranceOption = EXPECTED_TOLERANCE,
) -> None:
    """Load a bundle as a container does, and compare its scores with torch and your own."""
    from feedmodel.publish.expected import ServedBundle, compare

    with steps(messages, f"Loading {bundle}") as say:
        served = ServedBundle(bundle)
        agreement = expect and compare(served, expect, tolerance, step=say)
    manifest = served.model.manifest
    facts = {"model": manifest.model_version, "digest": manifest.digest, "golden": "as torch"}
    print_facts(output, facts | ({"expected": str(agreement)} if agreement else {}))
