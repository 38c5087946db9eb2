"""The model bundle: a folder or an S3 prefix, immutable, named by its digest.

Below the prefix lie the MLflow artifact, byte for byte, and `serving/`, which is all that this
module reads. The manifest lists size and SHA-256 of every file; the digest is the SHA-256 of the
manifest. A byte that differs anywhere refuses the whole bundle. Nothing is ever unpickled.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from feedrank.bundle import documents
from feedrank.errors import BundleError

SERVING = "serving"
MANIFEST = f"{SERVING}/manifest.json"
DIGEST_SIDECAR = f"{SERVING}/manifest.sha256"
ONNX_MODEL = f"{SERVING}/model.onnx"
TORCH_MODEL = f"{SERVING}/model.pt2"
SNAPSHOT = f"{SERVING}/features.safetensors"
GOLDEN = f"{SERVING}/golden.json"
FORMAT = 4
SHORT_DIGEST_DIGITS = 12
LARGEST_FILE_BYTES = 1 << 40
LONGEST_NAME = 255  # characters, as a file system has it


@dataclass(frozen=True, slots=True)
class FileEntry:
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Times are UTC in ISO 8601, such as 2026-11-25T09:30:00Z; None where nobody knows."""

    name: str
    version: str
    run_id: str
    network: str
    trained_at: str | None  # when the MLflow run ended
    snapshot_as_of: str | None  # the moment that the feature tables describe
    published_at: str | None
    batches: bool  # whether items of several requests may be scored in one run
    metrics: Mapping[str, float]
    feature_spec: Mapping[str, Any]
    built_with: Mapping[str, str]
    files: Mapping[str, FileEntry]  # by path from the bundle's root
    digest: str

    @property
    def model_version(self) -> str:
        """Name and version in one word that is safe in a path, such as `feed_ranker-3`."""
        return f"{self.name}-{self.version}"

    @property
    def short_digest(self) -> str:
        """Enough of the digest to tell two bundles of one version apart."""
        return self.digest[:SHORT_DIGEST_DIGITS]

    def snapshot_age_s(self, now: datetime) -> float | None:
        """None where nobody knows of when the feature tables are."""
        if self.snapshot_as_of is None:
            return None
        return now.timestamp() - _unix_s(self.snapshot_as_of)

    def public(self) -> dict[str, Any]:
        """What anybody may read: no file names, no place."""
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


def parse_manifest(raw: bytes) -> Manifest:
    """Raises BundleError for anything that is not a manifest of this format."""
    data = documents.read(raw, MANIFEST, _manifest)
    del data["format"]
    files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
    return Manifest(**data, files=files, digest=hashlib.sha256(raw).hexdigest())


def _manifest(data: Any, place: str) -> Any:  # noqa: ANN401
    found = data.get("format") if isinstance(data, dict) else FORMAT
    if found != FORMAT:
        raise BundleError(f"{MANIFEST}: format {found}, this code reads {FORMAT}; publish it anew")
    return _FIELDS(data, place)


def _file_name(value: Any, place: str) -> str:  # noqa: ANN401
    path = PurePosixPath(documents.text(longest=LONGEST_NAME)(value, place))
    if path.is_absolute() or ".." in path.parts or path.as_posix() != value:
        raise BundleError(f"{MANIFEST}: {value!r} leads out of the bundle")
    return path.as_posix()


def _moment(value: Any, place: str) -> str:  # noqa: ANN401
    found: str = documents.text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", 20)(value, place)
    try:
        datetime.fromisoformat(found)
    except ValueError as error:
        raise documents.wrong(place, str(error)) from error
    return found


_name = documents.text(r"\w[\w .+@=()-]*", LONGEST_NAME)  # part of paths
_plain = documents.text(longest=LONGEST_NAME)
_FIELDS = documents.fields(
    {
        "format": documents.whole(FORMAT, FORMAT),
        "name": _name,
        "version": _name,
        "run_id": documents.text(r"[0-9A-Za-z_-]*", LONGEST_NAME),
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
                    "size": documents.whole(0, LARGEST_FILE_BYTES),
                    "sha256": documents.text("[0-9a-f]{64}", 64),
                }
            ),
        ),
    }
)
