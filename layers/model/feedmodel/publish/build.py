"""From a tracked model to a bundle on disk."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from feedmodel.dates import now, parse_moment, parse_past
from feedmodel.errors import PublishError
from feedmodel.publish.export import Program, load_program, save_program, write_onnx
from feedmodel.publish.names import SNAPSHOT_AS_OF, SPEC_FILE
from feedmodel.publish.parity import Served, compare
from feedmodel.publish.registry import TrackedModel, fetch_model
from feedmodel.publish.signing import verify_model
from feedmodel.publish.snapshot import TableName, find_table, read_tables, write_snapshot
from feedmodel.publish.tracking import tracking_uri
from feedmodel.publish.upload import files_below, put_in_place
from feedrank.bundle.layout import (
    DIGEST_SIDECAR,
    FORMAT,
    GOLDEN,
    MANIFEST,
    ONNX_MODEL,
    SERVING,
    SNAPSHOT,
    TORCH_MODEL,
    Manifest,
    parse_manifest,
)
from feedrank.errors import BundleError
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

BUNDLES = Path("data/bundles")
BUILT_WITH = ("torch", "onnx", "onnxruntime", "mlflow", "numpy")
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Tables and spec that are not given are taken from the run's `features/` artifacts, the moment
    that the tables describe (`as_of`, ISO 8601 with a zone) from its tag. With `verify_key`, a
    public EC key in PEM, what comes from MLflow has to be signed; see `signing`."""

    model_uri: str
    tracking_uri: str | None = None
    spec: Path | None = None
    tables: Mapping[TableName, Path | None] = field(default_factory=dict)
    activation: Literal["none", "sigmoid"] = "none"
    allow_pickle: bool = False
    as_of: str | None = None
    bundles: Path = BUNDLES
    verify_key: Path | None = None


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """`parity` is the largest difference between a torch and an ONNX score, over `rows` rows.
    `missing` counts the empty cells by table and column, which took the spec's default."""

    folder: Path
    manifest: Manifest
    size_bytes: int
    parity: float
    rows: int
    missing: Mapping[str, int]


def build_bundle(options: PublishOptions, step: Step = lambda _: None) -> BuiltBundle:
    """Resolve, copy, export, compare, write. `step` hears what is being done.

    Raises PublishError, SpecError or BundleError; a bundle that failed is not left behind.
    """
    _check_files(options)
    as_of = parse_past(options.as_of, "--as-of") if options.as_of else None
    options.bundles.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.bundles, prefix=".build-") as scratch:
        step("fetching the model from MLflow")
        tracked_at = tracking_uri(options.tracking_uri)
        model = fetch_model(options.model_uri, tracked_at, Path(scratch))
        if options.verify_key:
            step("verifying the signature")
            verify_model(model, options.model_uri, options.verify_key)
        if as_of is None and model.snapshot_as_of:
            as_of = parse_moment(model.snapshot_as_of, f"the run's tag {SNAPSHOT_AS_OF}")
        step("reading the feature spec and tables")
        spec = _spec(options, model)
        tables = read_tables(spec, _table_paths(options, model))
        step("exporting to ONNX")
        program = load_program(
            model.artifact,
            spec,
            allow_pickle=options.allow_pickle,
            sigmoid=options.activation == "sigmoid",
        )
        spec = _in_model_order(spec, program)
        (model.artifact / SERVING).mkdir()
        save_program(program, model.artifact / TORCH_MODEL)
        write_onnx(program, spec, model.artifact / ONNX_MODEL)
        write_snapshot(tables, model.artifact / SNAPSHOT)
        onnx, snapshot = model.artifact / ONNX_MODEL, model.artifact / SNAPSHOT
        served = Served(spec, onnx, snapshot, program)
        parity = compare(served, tables, step)
        cases = json.dumps({"cases": parity.cases}, indent=1)
        (model.artifact / GOLDEN).write_text(cases)
        manifest = _write_manifest(
            model, spec, options.bundles, batches=parity.batches, as_of=as_of
        )
        folder = options.bundles / manifest.model_version
        put_in_place(model.artifact, folder)
    size_bytes = sum(entry.size for entry in manifest.files.values())
    missing = {
        f"{name}.{column}": count
        for name, table in tables.items()
        for column, count in table.missing.items()
        if count
    }
    return BuiltBundle(folder, manifest, size_bytes, parity.apart, parity.rows, missing)


def _check_files(options: PublishOptions) -> None:
    for option, path in (("spec", options.spec), *options.tables.items()):
        if path and not path.is_file():
            raise PublishError(f"--{option} {path}: there is no such file")


def _spec(options: PublishOptions, model: TrackedModel) -> FeatureSpec:
    path = options.spec or (model.features / SPEC_FILE if model.features else None)
    if path is None or not path.is_file():
        raise PublishError(
            f"no feature spec: give one with --spec, or log it to the run as features/{SPEC_FILE}"
        )
    try:
        return parse_spec(json.loads(path.read_bytes()))
    except ValueError as error:
        raise PublishError(f"{path.name}: not JSON: {error}") from error


def _table_paths(options: PublishOptions, model: TrackedModel) -> dict[TableName, Path | None]:
    logged = model.features
    names: tuple[TableName, ...] = ("users", "items", "pairs")
    return {
        name: options.tables.get(name) or (find_table(logged, name) if logged else None)
        for name in names
    }


def _in_model_order(spec: FeatureSpec, program: Program) -> FeatureSpec:
    """The torch engine hands inputs over by position."""
    by_name = {input_.name: input_ for input_ in spec.inputs}
    return replace(spec, inputs=tuple(by_name[name] for name in program.inputs))


def _write_manifest(
    model: TrackedModel, spec: FeatureSpec, bundles: Path, *, batches: bool, as_of: str | None
) -> Manifest:
    """Only `published_at` could change from one publish to the next; see `_published_at`."""
    root = model.artifact
    data: dict[str, Any] = {
        "format": FORMAT,
        "name": model.name,
        "version": model.version,
        "run_id": model.run_id,
        "network": model.network,
        "trained_at": model.trained_at,
        "snapshot_as_of": as_of,
        "published_at": None,
        "batches": batches,
        "metrics": model.metrics,
        "feature_spec": spec.to_json(),
        "built_with": {package: version(package) for package in BUILT_WITH},
        "files": {name: _entry(root / name) for name in files_below(root)},
    }
    model_version = parse_manifest(_to_bytes(data)).model_version
    data["published_at"] = _published_at(data, bundles / model_version)
    raw = _to_bytes(data)
    manifest = parse_manifest(raw)
    (root / DIGEST_SIDECAR).write_text(f"{manifest.digest}  manifest.json\n")
    (root / MANIFEST).write_bytes(raw)
    return manifest


def _published_at(data: Mapping[str, Any], earlier: Path) -> str:
    """Now, or, where nothing else differs from the earlier bundle of that version, when that one
    was published: the same model keeps its digest."""
    try:
        raw = (earlier / MANIFEST).read_bytes()
        published_at = parse_manifest(raw).published_at
    except (OSError, BundleError):
        return now()
    if published_at and _to_bytes({**data, "published_at": published_at}) == raw:
        return published_at
    return now()


def _to_bytes(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"


def _entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
