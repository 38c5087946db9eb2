"""The manifest, which lists every file of a bundle and from which its digest follows."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from feedmodel.dates import now
from feedmodel.publish.registry import TrackedModel
from feedmodel.publish.upload import files_below
from feedrank.bundle.layout import (
    DIGEST_SIDECAR,
    FORMAT,
    MANIFEST,
    Manifest,
    parse_manifest,
    sidecar,
)
from feedrank.errors import BundleError
from feedrank.features.spec import FeatureSpec

BUILT_WITH = ("torch", "onnx", "onnxruntime", "mlflow", "numpy")


def write_manifest(
    model: TrackedModel, spec: FeatureSpec, bundles: Path, *, batches: bool, as_of: str | None
) -> Manifest:
    """Beside the files in `model.artifact`. `bundles` may hold an earlier bundle of the version."""
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
    (root / DIGEST_SIDECAR).write_bytes(sidecar(manifest.digest))
    (root / MANIFEST).write_bytes(raw)
    return manifest


def _published_at(data: Mapping[str, Any], earlier: Path) -> str:
    """Now; or the earlier bundle's time if nothing else differs, so that the same model keeps its
    digest."""
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
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}
