"""From a tracked model to a bundle on disk."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from feedmodel.dates import parse_moment, parse_past
from feedmodel.errors import PublishError
from feedmodel.publish.ahead import Served, compute_ahead
from feedmodel.publish.ahead_parity import compare_ahead
from feedmodel.publish.expected import Agreement, ServedBundle
from feedmodel.publish.expected import compare as compare_with_team
from feedmodel.publish.export import (
    Program,
    declared_inputs,
    load_program,
    save_program,
    write_onnx,
)
from feedmodel.publish.golden import parity_queries
from feedmodel.publish.inputs import Declared, in_model_terms
from feedmodel.publish.limits import check_tables, with_limits
from feedmodel.publish.manifest import write_manifest
from feedmodel.publish.names import (
    EXPECTED_FILE,
    EXPECTED_TOLERANCE,
    FEATURES,
    SNAPSHOT_AS_OF,
    SPEC_FILE,
)
from feedmodel.publish.onnx_models import OnnxProgram, load_onnx, onnx_file
from feedmodel.publish.parity import Parity, compare
from feedmodel.publish.quantized import compare_quantized, write_quantized
from feedmodel.publish.registry import TrackedModel, fetch_model
from feedmodel.publish.rounding import cost_of_float16
from feedmodel.publish.scorers import Scorers
from feedmodel.publish.signing import verify_model
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import TABLES, TableName, find_table, read_tables
from feedmodel.publish.tracking import tracking_uri
from feedmodel.publish.upload import link, put_in_place, size_of
from feedmodel.publish.vocabularies import read_spec, request_vocabularies, without_texts
from feedrank.bundle.layout import GOLDEN, ONNX_MODEL, SERVING, SNAPSHOT, TORCH_MODEL, Manifest
from feedrank.features.spec import FeatureSpec

INT8_TOLERANCE = 0.05  # of the team's scores: what 8 bits cost in ranking is measured apart
BUNDLES = Path("data/bundles")
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Tables and spec that are not given come from the run's `features/` artifacts, the time of the
    tables (`as_of`, ISO 8601 with a zone) from its tag. With `verify_key`, a public EC key in PEM,
    what comes from MLflow has to be signed; see `signing`. `precompute` names inputs of the item
    alone, whose part of the model is computed ahead of time; `quantize` makes weights int8.
    `expect` has the team's own scores, which the bundle has to give to `tolerance`; without it,
    those that the run has logged, unless a spec or a table is given here that they may not belong
    to."""

    model_uri: str
    tracking_uri: str | None = None
    spec: Path | None = None
    tables: Mapping[TableName, Path | None] = field(default_factory=dict)
    activation: Literal["none", "sigmoid"] = "none"
    allow_pickle: bool = False
    as_of: str | None = None
    bundles: Path = BUNDLES
    verify_key: Path | None = None
    precompute: tuple[str, ...] = ()
    quantize: Literal["none", "int8"] = "none"
    expect: Path | None = None
    tolerance: float = EXPECTED_TOLERANCE


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """`size_bytes` is of all files, `container_bytes` of those that a container on Lambda reads.
    `parity` is the largest difference between a torch and an ONNX score, over `rows` rows; None of
    a model that came as ONNX, where only the team's scores tell. `missing` counts the empty cells
    by table and column, which hold the spec's default, `unknown` those whose text no vocabulary
    has, which are 0. `vector_width` is of the item vectors that were computed ahead of time, 0
    without them; `agreement` is that with the team's scores, where there are any.
    `notes` are what else there is to say, by subject."""

    directory: Path
    manifest: Manifest
    size_bytes: int
    parity: float | None
    rows: int
    missing: Mapping[str, int]
    vector_width: int = 0
    agreement: Agreement | None = None
    unknown: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    container_bytes: int = 0


def build_bundle(options: PublishOptions, step: Step = lambda _: None) -> BuiltBundle:
    """Fetch, verify, export, compare, write. `step` is called with a text before each.

    Raises PublishError, SpecError or BundleError, and then leaves no bundle behind.
    """
    _check_files(options)
    as_of = parse_past(options.as_of, "--as-of") if options.as_of else None
    options.bundles.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.bundles, prefix=".build-") as scratch:
        model = _fetch(options, Path(scratch), step)
        as_of = as_of or _tagged_as_of(model)
        step("reading the feature spec and tables")
        spec = _read_spec(options, model)
        tables = read_tables(spec, _table_paths(options, model))
        program, declared = _load(options, model, spec, step)
        spec = in_model_terms(spec, declared)
        served, parity = _write_serving(
            model.artifact,
            Served(spec, program, tables),
            options,
            step,
            _expected_scores(options, model),
        )
        manifest = write_manifest(
            model,
            without_texts(served.spec),
            options.bundles,
            batches=parity.batches,
            as_of=as_of,
        )
        agreement = _compare_with_team(options, model, manifest.digest, step)
        directory = options.bundles / manifest.model_version
        put_in_place(model.artifact, directory)
    return BuiltBundle(
        directory,
        manifest,
        size_of(manifest),
        None if isinstance(program, OnnxProgram) else parity.apart,
        parity.rows,
        _by_column({name: table.missing for name, table in tables.items()}),
        served.vector_width,
        agreement,
        _by_column({name: table.unknown for name, table in tables.items()}),
        parity.notes,
        sum(manifest.files[name].size for name in (ONNX_MODEL, SNAPSHOT, GOLDEN)),
    )


def _check_files(options: PublishOptions) -> None:
    for option, path in (
        ("spec", options.spec),
        ("expect", options.expect),
        *options.tables.items(),
    ):
        if path and not path.is_file():
            raise PublishError(f"--{option} {path}: there is no such file")


def _fetch(options: PublishOptions, scratch: Path, step: Step) -> TrackedModel:
    """Nothing is loaded before its signature is verified."""
    step("fetching the model from MLflow")
    model = fetch_model(options.model_uri, tracking_uri(options.tracking_uri), scratch)
    if options.verify_key:
        step("verifying the signature")
        verify_model(model, options.model_uri, options.verify_key)
    return model


def _tagged_as_of(model: TrackedModel) -> str | None:
    if not model.snapshot_as_of:
        return None
    return parse_moment(model.snapshot_as_of, f"the run's tag {SNAPSHOT_AS_OF}")


def _read_spec(options: PublishOptions, model: TrackedModel) -> FeatureSpec:
    path = options.spec or (model.features / SPEC_FILE if model.features else None)
    if path is None or not path.is_file():
        raise PublishError(
            f"no feature spec: give one with --spec, or log it to the run as {FEATURES}/{SPEC_FILE}"
        )
    return read_spec(path)


def _table_paths(options: PublishOptions, model: TrackedModel) -> dict[TableName, Path | None]:
    logged = model.features
    return {
        name: options.tables.get(name) or (find_table(logged, name) if logged else None)
        for name in TABLES
    }


def _load(
    options: PublishOptions, model: TrackedModel, spec: FeatureSpec, step: Step
) -> tuple[Program | OnnxProgram, Mapping[str, Declared]]:
    """The model, and its inputs as it declares them."""
    if file := onnx_file(model.artifact):
        if options.activation != "none":
            raise PublishError(
                "--activation is for a PyTorch model: an ONNX file is served as it is"
            )
        if _expected_scores(options, model) is None:
            raise PublishError(
                "an ONNX model has no torch program to compare with: give the scores of your own "
                f"evaluation with --expect, or log them to the run as {FEATURES}/{EXPECTED_FILE}"
            )
        onnx_program = load_onnx(file, spec)
        return onnx_program, onnx_program.inputs
    step("exporting to ONNX")
    program = load_program(
        model.artifact,
        spec,
        allow_pickle=options.allow_pickle,
        sigmoid=options.activation == "sigmoid",
    )
    return program, declared_inputs(program)


def _expected_scores(options: PublishOptions, model: TrackedModel) -> Path | None:
    logged = model.features and model.features / EXPECTED_FILE
    is_as_logged = options.spec is None and not any(options.tables.values())
    path = options.expect or (logged if is_as_logged else None)
    return path if path and path.is_file() else None


def _compare_with_team(
    options: PublishOptions, model: TrackedModel, digest: str, step: Step
) -> Agreement | None:
    """By the code that a container runs, on the bundle as it will be."""
    path = _expected_scores(options, model)
    if path is None:
        return None
    step(f"comparing with {path.name}")
    exact = options.quantize == "none"
    tolerance = options.tolerance if exact else max(options.tolerance, INT8_TOLERANCE)
    bundle = ServedBundle(str(model.artifact), digest)
    return compare_with_team(
        bundle, path, tolerance, tables=_table_paths(options, model), step=step
    )


def _write_serving(
    root: Path, whole: Served, options: PublishOptions, step: Step, expect: Path | None
) -> tuple[Served, Parity]:
    """All files of `serving/` but the manifest; and what is served in place of the whole model."""
    (root / SERVING).mkdir()
    scorers = _write_model(root, whole)
    limited = with_limits(scorers, parity_queries(whole.spec, whole.tables))
    parity = compare(scorers, whole.tables, step)
    check_tables(limited, whole.tables)
    whole = replace(whole, spec=limited)
    if cost := cost_of_float16(scorers, whole.tables, options.tolerance, root.parent):
        parity.notes["float16"] = cost
    served = whole
    if options.precompute:
        step("computing item vectors")
        served = compute_ahead(whole, options.precompute)
        ahead = _write_model(root, served)  # in place of the whole model, which is compared
        parity = compare_ahead(scorers, ahead, whole.tables, parity)
        scorers = ahead
    if options.quantize == "int8":
        step("quantising")
        small, size = _quantize(root, served)
        parity = compare_quantized(scorers, small, whole, parity, expect)
        parity.notes["int8 size"] = size
    (root / GOLDEN).write_text(json.dumps({"cases": parity.cases}, indent=1))
    return served, parity


def _write_model(root: Path, served: Served) -> Scorers:
    """The model by both engines' files, and the tables; read as a container does."""
    for name in (TORCH_MODEL, ONNX_MODEL, SNAPSHOT):
        (root / name).unlink(missing_ok=True)  # not over what is mapped
    if isinstance(served.program, OnnxProgram):
        link(served.program.file, root / ONNX_MODEL)
    else:
        save_program(served.program, root / TORCH_MODEL)
        write_onnx(served.program, served.spec, root / ONNX_MODEL)
    write_snapshot(served.tables, root / SNAPSHOT, request_vocabularies(served.spec))
    return Scorers(served.spec, root / ONNX_MODEL, root / SNAPSHOT, served.program)


def _quantize(root: Path, served: Served) -> tuple[Scorers, str]:
    """In place of the ONNX file; the torch program, which isn't quantised, goes."""
    small = root / f"{ONNX_MODEL}.int8"
    size = write_quantized(root / ONNX_MODEL, small)
    small.replace(root / ONNX_MODEL)
    (root / TORCH_MODEL).unlink(missing_ok=True)
    return Scorers(served.spec, root / ONNX_MODEL, root / SNAPSHOT, served.program), size


def _by_column(counts: Mapping[TableName, Mapping[str, int]]) -> dict[str, int]:
    return {
        f"{name}.{column}": count
        for name, columns in counts.items()
        for column, count in columns.items()
        if count
    }
