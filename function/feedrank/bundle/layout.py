"""The format of a model bundle. Publishing writes it and serving reads it by the names here.

A bundle is a directory or an S3 prefix with the MLflow artifact, byte for byte, and `serving/`:

    serving/manifest.json         what the bundle is; size and SHA-256 of every other file
    serving/manifest.sha256       the bundle's digest: the SHA-256 of the manifest
    serving/model.onnx            the exported model, in one file
    serving/model.pt2             the same by `torch.export`, for the torch engine
    serving/features.safetensors  the snapshot of the feature tables
    serving/golden.json           requests with the scores that torch gave for them

On S3 the digest is part of the prefix (`.../sha256-<digest>/`), so a bundle never changes. One byte
that differs refuses it. Serving unpickles nothing. A file of the artifact that is in `serving/`
as well is stored there alone: the manifest has both names, with one hash. A bundle of a model that
came as ONNX, or that is quantised, has no `model.pt2`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from math import inf
from pathlib import PurePosixPath
from typing import Any

from feedrank.bundle import documents
from feedrank.bundle.documents import Json
from feedrank.errors import BundleError

SERVING = "serving"
MANIFEST = f"{SERVING}/manifest.json"
DIGEST_SIDECAR = f"{SERVING}/manifest.sha256"  # a line of `sha256sum`
ONNX_MODEL = f"{SERVING}/model.onnx"
TORCH_MODEL = f"{SERVING}/model.pt2"
SNAPSHOT = f"{SERVING}/features.safetensors"
GOLDEN = f"{SERVING}/golden.json"
FORMAT = 4
SHORT_DIGEST_DIGITS = 12
MAX_FILE_BYTES = 1 << 40
MAX_NAME_LENGTH = 255  # characters
_DIGEST_IN_URI = re.compile(r"sha256-([0-9a-f]{64})/?$")
_SIDECAR = re.compile(rb"([0-9a-f]{64})  manifest\.json\n")


@dataclass(frozen=True, slots=True)
class FileEntry:
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Times are UTC in ISO 8601, such as 2026-11-25T09:30:00Z; None where unknown."""

    name: str
    version: str
    run_id: str
    network: str
    trained_at: str | None  # when the MLflow run ended
    snapshot_as_of: str | None  # the moment that the feature tables describe
    published_at: str | None
    batches: bool  # whether one inference may score items of several requests
    metrics: Mapping[str, float]
    feature_spec: Mapping[str, Any]
    built_with: Mapping[str, str]
    files: Mapping[str, FileEntry]  # by path below the bundle's root
    digest: str

    @property
    def model_version(self) -> str:
        """Name and version, safe in a path: `feed_ranker-3`."""
        return f"{self.name}-{self.version}"

    @property
    def short_digest(self) -> str:
        """Tells two bundles of one version apart."""
        return self.digest[:SHORT_DIGEST_DIGITS]

    @property
    def snapshot_as_of_s(self) -> float:
        """In Unix seconds; long ago where the moment is unknown."""
        return -inf if self.snapshot_as_of is None else _unix_s(self.snapshot_as_of)

    def snapshot_age_s(self, now_s: float) -> float | None:
        """None where the moment of the feature tables is unknown."""
        return None if self.snapshot_as_of is None else now_s - _unix_s(self.snapshot_as_of)

    def public(self) -> dict[str, Any]:
        """What `/model` responds with: no file names, no place."""
        return {
            "name": self.name,
            "version": self.version,
            "network": self.network,
            "trained_at": self.trained_at,
            "snapshot_as_of": self.snapshot_as_of,
            "published_at": self.published_at,
            "batches": self.batches,
            "run_id": self.run_id,
            "digest": self.digest,
            "metrics": self.metrics,
            "feature_spec": self.feature_spec,
            "built_with": self.built_with,
        }


@cache
def _unix_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def directory_name(digest: str) -> str:
    """The last part of a bundle's prefix on S3."""
    return f"sha256-{digest}"


def digest_in(uri: str) -> str:
    """The digest in a bundle's URI; empty where it has none."""
    match = _DIGEST_IN_URI.search(uri)
    return match[1] if match else ""


def sidecar(digest: str) -> bytes:
    """What `sha256sum manifest.json` prints."""
    return f"{digest}  manifest.json\n".encode()


def parse_sidecar(raw: bytes) -> str:
    """The digest. Raises BundleError."""
    match = _SIDECAR.fullmatch(raw)
    if not match:
        raise BundleError(f"{DIGEST_SIDECAR}: must be `<SHA-256>  manifest.json` and a newline")
    return match[1].decode()


def parse_manifest(raw: bytes) -> Manifest:
    """Raises BundleError for anything that is not a manifest of this format."""
    data = documents.read(raw, MANIFEST, _manifest)
    del data["format"]
    files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
    return Manifest(**data, files=files, digest=hashlib.sha256(raw).hexdigest())


def _manifest(data: Json, place: str) -> Json:
    format_ = data.get("format") if isinstance(data, dict) else FORMAT
    if format_ != FORMAT:
        raise BundleError(
            f"{MANIFEST}: format {format_}, this code reads {FORMAT}; publish the model again"
        )
    return _FIELDS(data, place)


def _file_name(value: Json, place: str) -> str:
    path = PurePosixPath(documents.text(max_length=MAX_NAME_LENGTH)(value, place))
    if path.is_absolute() or ".." in path.parts or path.as_posix() != value:
        raise BundleError(f"{MANIFEST}: {value!r} leads out of the bundle")
    return path.as_posix()


def _moment(value: Json, place: str) -> str:
    moment: str = documents.text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", 20)(value, place)
    try:
        datetime.fromisoformat(moment)
    except ValueError as error:
        raise documents.wrong(place, str(error)) from error
    return moment


_name = documents.text(r"\w[\w .+@=()-]*", MAX_NAME_LENGTH)  # part of paths
_plain = documents.text(max_length=MAX_NAME_LENGTH)
_FIELDS = documents.fields(
    {
        "format": documents.whole(FORMAT, FORMAT),
        "name": _name,
        "version": _name,
        "run_id": documents.text(r"[0-9A-Za-z_-]*", MAX_NAME_LENGTH),
        "network": _plain,
        "trained_at": documents.or_null(_moment),
        "snapshot_as_of": documents.or_null(_moment),
        "published_at": documents.or_null(_moment),
        "batches": documents.flag,
        "metrics": documents.mapping(_plain, documents.number()),
        "feature_spec": documents.anything,  # `parse_spec` reads it
        "built_with": documents.mapping(_plain, _plain),
        "files": documents.mapping(
            _file_name,
            documents.fields(
                {
                    "size": documents.whole(0, MAX_FILE_BYTES),
                    "sha256": documents.text("[0-9a-f]{64}", 64),
                }
            ),
        ),
    }
)
