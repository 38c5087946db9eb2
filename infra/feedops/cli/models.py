"""Commands that make a model and decide which one serves."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feedmodel.dates import EXAMPLE as TIME_EXAMPLE
from feedmodel.demo.options import NetworkName, TrainOptions
from feedmodel.publish.names import CANDIDATE, EXPECTED_TOLERANCE
from feedops.cli.app import messages, output
from feedops.cli.options import (
    DEMO,
    IN_PRODUCTION,
    ExpectOption,
    ExtensionsOption,
    ItemsOption,
    ModelArgument,
    PairsOption,
    PortOption,
    SpecOption,
    ToleranceOption,
    TrackingUriOption,
    UsersOption,
    VerifyKeyOption,
    check_verify_key,
)
from feedops.display import print_facts, print_whole, steps

if TYPE_CHECKING:
    from feedmodel.publish.build import BuiltBundle
    from feedmodel.publish.upload import Published

NOT_COMPARED = "not compared with scores of your own: give them with --expect"


def train(
    *,
    users: Annotated[int, typer.Option(help="Users in the synthetic feed.")] = DEMO.users,
    items: Annotated[int, typer.Option(help="Items in the synthetic feed.")] = DEMO.items,
    interactions: Annotated[
        int, typer.Option(help="Times that an item is shown to a user, clicked or not.")
    ] = DEMO.interactions,
    seed: Annotated[
        int,
        typer.Option(help="Random seed of feed and weights: the same seed gives the same model."),
    ] = DEMO.seed,
    network: Annotated[
        NetworkName,
        typer.Option(
            help="deep_mlp: one network over all features. "
            "two_tower: a network for the user, one for the item."
        ),
    ] = DEMO.network,
    epochs: Annotated[int, typer.Option(help="Maximum number of epochs.")] = DEMO.epochs,
    batch_size: Annotated[int, typer.Option(help="Rows in a training step.")] = DEMO.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate of the Adam optimizer.")
    ] = DEMO.learning_rate,
    patience: Annotated[
        int, typer.Option(help="Stop after this many epochs without a better validation loss.")
    ] = DEMO.patience,
    experiment: Annotated[
        str, typer.Option(help="MLflow experiment that gets the run.")
    ] = DEMO.experiment,
    name: Annotated[
        str, typer.Option(help="Name of the registered model in MLflow.")
    ] = DEMO.registered_name,
    alias: Annotated[
        str, typer.Option(help="Alias in MLflow that will point to the new version.")
    ] = DEMO.alias,
    tracking_uri: TrackingUriOption = None,
) -> None:
    """Train a model on a synthetic feed and register it in MLflow."""
    options = TrainOptions(
        users=users,
        items=items,
        interactions=interactions,
        seed=seed,
        network=network,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        experiment=experiment,
        registered_name=name,
        alias=alias,
        tracking_uri=tracking_uri,
    )
    from feedmodel.demo.train import train as run_training

    result = run_training(options, messages)
    if alias == CANDIDATE:
        print_whole(
            output,
            f"models:/{name}/{result.version} is the candidate; compare it with the model in "
            "production, and promote it: feedrank promote",
        )


def promote(
    version: Annotated[
        str,
        typer.Argument(
            help=f"Version number of {DEMO.registered_name}, or models:/name/version, "
            "or models:/name@alias."
        ),
    ] = f"models:/{DEMO.registered_name}@{CANDIDATE}",
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote it even if it ranks worse or can't be compared."),
    ] = False,
    tracking_uri: TrackingUriOption = None,
) -> None:
    """Compare a version with the one in production, and promote it unless it ranks worse."""
    from feedops.models.promote import promote as run_promotion

    name = f"models:/{DEMO.registered_name}/{version}" if version.isdecimal() else version
    run_promotion(name, tracking_uri=tracking_uri, force=force, console=output)


def sign(
    model: ModelArgument = IN_PRODUCTION,
    *,
    key: Annotated[
        str,
        typer.Option(
            help="Private EC key (PEM), whose password, if any, is read from "
            "FEEDRANK_KEY_PASSWORD; or a key in AWS KMS, such as awskms:///alias/feedrank."
        ),
    ],
    tracking_uri: TrackingUriOption = None,
) -> None:
    """Sign a model in MLflow by OpenSSF model signing, so that publish can verify it."""
    from feedmodel.publish.signing import PASSWORD_VARIABLE, sign_model

    password = os.environ.get(PASSWORD_VARIABLE)
    print_facts(output, {"signed": "\n".join(sign_model(model, tracking_uri, key, password))})


def publish(
    model: ModelArgument = IN_PRODUCTION,
    *,
    to: Annotated[
        str,
        typer.Option(
            help="s3://bucket/prefix/ or a directory, for a copy of the bundle.",
            show_default="data/bundles alone",
        ),
    ] = "",
    spec: SpecOption = None,
    users: UsersOption = None,
    items: ItemsOption = None,
    pairs: PairsOption = None,
    expect: ExpectOption = None,
    tolerance: ToleranceOption = EXPECTED_TOLERANCE,
    activation: Annotated[
        Literal["none", "sigmoid"],
        typer.Option(help="sigmoid: for a model whose output is a logit, not a score in [0, 1]."),
    ] = "none",
    precompute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="Input of the item alone: compute its part of the model now, for every item, and "
            "store the vectors. May be repeated.",
            show_default="nothing",
        ),
    ] = None,
    quantize: Annotated[
        Literal["none", "int8"],
        typer.Option(
            help="int8: weights of 8 bits, a smaller model. Says what it costs in ranking, and is "
            "refused if more than 10 % of the top 10 change."
        ),
    ] = "none",
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Accept a pickled model. Loading one runs its author's code on this machine.",
        ),
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=f"Time at which the feature tables were read, such as {TIME_EXAMPLE}.",
            show_default="the run's tag feedrank.snapshot_as_of",
        ),
    ] = None,
    verify_key: VerifyKeyOption = None,
    extensions: ExtensionsOption = None,
    tracking_uri: TrackingUriOption = None,
) -> None:
    """Export a model in MLflow to a bundle, compare its scores with torch and your own, and upload
    it."""
    from feedmodel.publish.upload import check_target, upload

    if to:
        check_target(to)
    from feedmodel.publish.build import PublishOptions, build_bundle
    from feedrank.extensions import load_extensions_file

    check_verify_key(verify_key)
    if extensions:
        load_extensions_file(extensions)
    options = PublishOptions(
        model,
        tracking_uri=tracking_uri,
        spec=spec,
        tables={"users": users, "items": items, "pairs": pairs},
        activation=activation,
        allow_pickle=allow_pickle,
        precompute=tuple(precompute or ()),
        quantize=quantize,
        as_of=as_of,
        verify_key=verify_key,
        expect=expect,
        tolerance=tolerance,
    )
    with steps(messages, "Publishing") as say:
        built = build_bundle(options, say)
        published = upload(built.directory, to) if to else None
    uri = published.uri if published else str(built.directory)
    print_facts(output, _facts(built, published, uri))
    if uri.startswith("s3://"):
        print_whole(output, f"To deploy it: feedrank release {uri} --stack NAME")


def _facts(built: "BuiltBundle", published: "Published | None", uri: str) -> dict[str, str]:
    from feedops.stack.budget import where_it_fits

    manifest = built.manifest
    facts = {
        "model": manifest.model_version,
        "bundle": uri,
        "digest": manifest.digest,
        "trained": manifest.trained_at or "unknown: MLflow has no run of it",
        "snapshot": manifest.snapshot_as_of or f"no date; give it: --as-of {TIME_EXAMPLE}",
        "published": manifest.published_at or "",
        "size": f"{built.size_bytes / 1e6:.1f} MB",
        "fits": where_it_fits(built.container_bytes),
        "parity": "an ONNX model has no torch to compare with"
        if built.parity is None
        else f"{built.parity:.1e} at most between torch and ONNX, {built.rows:,} rows",
        "expected": str(built.agreement or NOT_COMPARED),
        "batches": "yes" if manifest.batches else "no: one inference per request",
    }
    if built.vector_width:
        facts["item vectors"] = f"{built.vector_width} numbers an item, computed ahead of time"
    if built.missing:
        cells = (f"{column} {count:,}" for column, count in built.missing.items())
        facts["empty cells"] = f"{', '.join(cells)}; filled with the spec's defaults"
    if built.unknown:
        cells = (f"{column} {count:,}" for column, count in built.unknown.items())
        facts["unknown"] = f"{', '.join(cells)}; in no vocabulary, so 0"
    facts |= built.notes
    if published:
        facts["uploaded"] = f"{published.uploaded} files" if published.uploaded else "nothing new"
    return facts


def ui(*, port: PortOption = 5_000, tracking_uri: TrackingUriOption = None) -> None:
    """Open MLflow's web pages on this machine: runs, metrics, models and their versions."""
    from feedops.local.ui import serve_ui

    serve_ui(port, tracking_uri, output)
